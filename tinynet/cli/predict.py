"""``tinynet predict``: a run's model applied to a file; predictions as CSV."""

from __future__ import annotations

import csv
import io
import os
import sys

import numpy as np

import tinynet as tn
from tinynet import data
from tinynet.errors import DataError
from tinynet.train.safetensors import atomic_write

from .sources import inputs_of


def add_parser(commands) -> None:
    parser = commands.add_parser("predict", help="apply a run's model to a file, and write predictions as CSV")
    parser.add_argument("folder", metavar="RUN", help="folder that 'train' wrote, or a model file")
    parser.add_argument("file", metavar="FILE", help="CSV with the columns of the training file; or IDX images")
    parser.add_argument("--out", metavar="CSV", help="where to write; by default the standard output")
    parser.set_defaults(run=_predict)


def _predict(args) -> None:
    path = args.folder
    if os.path.isdir(path):
        path = os.path.join(path, "model.safetensors")
    if not os.path.exists(path):
        raise DataError(args.folder, expected="a folder that 'tinynet train' wrote", got="no model.safetensors in it")
    model, extra = tn.load(path), tn.train.load_extra(path)
    if not {"preprocessor", "image"} & extra.keys():
        raise DataError(
            f"{path}", expected="a model that says how to read a file", got="one saved without that",
            mend="use models that 'tinynet train' wrote, or tn.predict",
        )  # fmt: skip
    x = inputs_of(args.file, extra)
    rows = _rows(tn.predict(model, x) if len(x) else np.zeros((0, 1)), extra)
    if args.out:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        atomic_write(args.out, [text.getvalue().encode()])
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)


def _rows(outputs: np.ndarray, extra: dict):
    """The header and one row per prediction."""
    preprocessor = data.Preprocessor.from_dict(extra["preprocessor"]) if "preprocessor" in extra else None
    if preprocessor is not None and preprocessor.task == "regression":
        yield ["prediction"]
        for value in preprocessor.inverse_target(outputs)[:, 0]:
            yield [f"{value:.6g}"]
        return
    classes = extra["classes"] if preprocessor is None else preprocessor.classes
    yield ["prediction", "probability"]
    if not len(outputs):
        return
    probabilities = tn.softmax(tn.as_tensor(outputs)).numpy()
    for best, row in zip(outputs.argmax(axis=1), probabilities):
        yield [classes[best], f"{row[best]:.6f}"]
