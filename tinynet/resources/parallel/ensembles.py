"""``ensemble``: several models of one kind, trained from different seeds, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

from tinynet import ops
from tinynet.data import Dataset
from tinynet.data.sampling import check_seed
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.tensor import as_tensor
from tinynet.train import History, predict
from tinynet.train.evaluating import as_dataset

from .processes import divided, require_picklable, run_all
from .runs import Recipe, Trained, Worker, shared


class Ensemble:
    """Models whose outputs are averaged: as probabilities where they classify, else as they are.

    After Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017.

    Args:
        models: of one output shape.
        classifies: whether outputs are logits, of which probabilities are made by softmax before they are averaged.

    Attributes:
        histories, workers: of the members' training, where ``ensemble`` made it.

    Raises:
        ArgumentError: no models.
    """

    def __init__(
        self, models: Sequence[Module], classifies: bool, histories: Sequence[History] = (),
        workers: Sequence[Worker] = (),
    ):  # fmt: skip
        if not models:
            raise ArgumentError("Ensemble", expected="at least one model", got="none")
        self.models, self.classifies = list(models), classifies
        self.histories, self.workers = list(histories), list(workers)

    def predict_each(self, x, batch_size: int = 1024) -> list:
        """What each member says of all samples: a host array (n, ...) of probabilities, or of outputs."""
        found = [predict(model, x, batch_size) for model in self.models]
        return [ops.softmax(as_tensor(each, "numpy")).numpy() for each in found] if self.classifies else found

    def predict(self, x, batch_size: int = 1024):
        """The mean over the members: a host array (n, ...). ``predict(x).argmax(-1)`` gives the classes."""
        return sum(self.predict_each(x, batch_size)) / len(self.models)

    def spread(self, x, batch_size: int = 1024):
        """The standard deviation over the members, like ``predict``: how far they disagree about each sample."""
        each = self.predict_each(x, batch_size)
        mean = sum(each) / len(each)
        return (sum((one - mean) ** 2 for one in each) / len(each)) ** 0.5

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)} {'classifiers' if self.classifies else 'models'}: {self.models[0]!r}"


def ensemble(
    build, train, members: int = 5, processes: int | None = None, seed: int = 0, *, threads: int = 1, **options
) -> Ensemble:  # fmt: skip
    """Trains several models on the same data, from different seeds, in several processes.

    Member i is what ``tn.seed(seed + i)``, ``build(seed + i)`` and ``tn.fit(..., seed=seed + i)`` make, to the bit,
    however many processes there are.

    Args:
        build, processes, seed, threads, options: as for ``cross_validate``.
        train: a ``Dataset`` or a pair (x, y); on disk, where it does not fit into memory (see ``tn.data.stored``).
        members: how many, at least 1.

    Returns:
        The ``Ensemble``; it averages probabilities where ``y`` holds class indices.

    Raises:
        As ``cross_validate``; notes name the member.
    """
    where = "ensemble"
    data = as_dataset(where, train)
    if isinstance(members, bool) or not isinstance(members, int) or members < 1:
        raise ArgumentError(where, expected="members, a whole number of at least 1", got=repr(members))
    seed = check_seed(seed, where)
    check_seed(seed + members - 1, where)
    processes = divided(where, members, processes, threads)
    recipe = Recipe.checked(where, build, options)
    require_picklable(where, build=build, **options)
    with shared(data) as stored:
        tasks = [(recipe, stored, not data.on_disk, seed + i) for i in range(members)]
        found = run_all(where, _member, tasks, processes=processes, threads=threads, kind="member")
    histories, workers = [each.history for each in found], [each.worker for each in found]
    return Ensemble([each.model for each in found], data.has_labels, histories, workers)


def _member(recipe: Recipe, stored: Dataset, load: bool, seed: int) -> Trained:
    trained = recipe.train(seed, stored[range(len(stored))] if load else stored)
    return trained._replace(loss=None)  # it came from here
