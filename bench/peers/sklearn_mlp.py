"""scikit-learn's MLP: ``partial_fit`` of one batch is one step of Adam; the first weights are put in beforehand."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..workloads import BETA1, BETA2, EPSILON, LEARNING_RATE
from .base import Peer as Base


def epsilon(t):
    """scikit-learn adds epsilon to the root of the second moment before its bias is corrected, others after that."""
    return EPSILON * (1 - BETA2**t) ** 0.5


class Peer(Base):
    def __init__(self, threads, variant="", executor=None):
        super().__init__(threads, variant, executor)
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)

    def version(self):
        return sklearn.__version__

    def model(self, network, weights):
        kind = MLPRegressor if network.loss == "mse" else MLPClassifier
        model = kind(
            hidden_layer_sizes=network.sizes[1:-1], activation="relu", solver="adam", alpha=0.0,
            batch_size=network.batch, learning_rate_init=LEARNING_RATE, beta_1=BETA1, beta_2=BETA2,
            epsilon=epsilon(1), shuffle=False,
        )  # fmt: skip
        classes = network.sizes[-1]
        x = np.zeros((max(network.batch, classes), network.sizes[0]), "float32")
        if network.loss == "mse":
            model.partial_fit(x, np.zeros((len(x), classes), "float32").squeeze(1))
        else:
            model.partial_fit(x, np.arange(len(x)) % classes, classes=np.arange(classes))
        model.coefs_ = [w.copy() for w in weights[::2]]
        model.intercepts_ = [b.copy() for b in weights[1::2]]
        del model._optimizer  # so that the moments begin at zero, over these weights
        model.network = network
        return model

    def batch(self, x, y):
        return x, y[:, 0] if y.ndim == 2 else y

    def training(self, model):
        factor = 2 if model.network.loss == "mse" else 1  # scikit-learn's is half the mean square

        t = 1

        def step(batch):
            nonlocal t
            model.partial_fit(*batch)
            t += 1
            model._optimizer.epsilon = epsilon(t)
            return factor * model.loss_

        return step

    def inference(self, model, batch):
        return model.predict if model.network.loss == "mse" else model.predict_proba

    def expected(self, outputs, network):
        if network.loss == "mse":
            return outputs[:, 0]
        p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)
