"""What ``train`` can train on: for each source its data, the settings that suit it, and how ``predict`` reads a file.

A model's file holds, as ``extra``, what is needed to feed it again: the preprocessor of a table, or the size and scale
of an image. Nothing else knows which source a model came from.
"""

from __future__ import annotations

import math

import numpy as np

from tinynet import data
from tinynet.errors import DataError


class Source:
    """A data set and the defaults for training on it.

    Attributes:
        train, test: the parts; test may be of length 0.
        task: "classification" or "regression".
        defaults: settings where the command line is silent.
        extra: JSON-able, saved with the model.
        title: one line on what it is.
    """

    def __init__(self, train, test, task: str, defaults: dict, extra: dict, title: str):
        self.train, self.test, self.task = train, test, task
        self.defaults, self.extra, self.title = defaults, extra, title

    @property
    def outputs(self) -> int:
        return len(self.train.classes) if self.task == "classification" else self.train.y.shape[1]

    @property
    def loss(self) -> str:
        return "cross_entropy" if self.task == "classification" else "mse"


def _images(name: str, train, test, scale: int, defaults: dict) -> Source:
    title = f"{name}: {len(train):,} training and {len(test):,} held-out images of {train.x.shape[1]} pixels"
    extra = {"source": name, "classes": list(train.classes), "image": {"pixels": train.x.shape[1], "scale": scale}}
    return Source(train, test, "classification", defaults, extra, f"{title}, {len(train.classes)} classes")


def digits(args) -> Source:
    """The 8x8 digits inside the package."""
    settings = {"hidden": [128], "dropout": 0.2, "epochs": 40, "batch": 32, "lr": 0.01}
    return _images("digits", *data.digits(), 16, settings)


def mnist(args) -> Source:
    """The four IDX files in a folder."""
    settings = {"hidden": [512, 512], "dropout": 0.2, "epochs": 20, "batch": 128, "lr": 0.002}
    return _images("mnist", *data.mnist(args.data, verify=not args.no_verify), 255, settings)


def csv(args) -> Source:
    """A table; the target's kind decides the task unless the command line does."""
    train, test = data.csv(args.file, args.target, args.task, holdout=args.holdout, seed=args.seed)
    task = train.preprocessor.task
    batch = 32
    steps = math.ceil(len(train) / batch)
    settings = {
        "hidden": [64, 64], "dropout": 0.0, "epochs": min(max(math.ceil(2000 / steps), 20), 2000), "batch": batch,
        "lr": 0.01,
    }  # fmt: skip
    title = (
        f"{args.file}: {len(train):,} training and {len(test):,} held-out rows, {_count(train.x.shape[1], 'feature')}"
    )
    if task == "classification":
        title += f", {len(train.classes)} classes of {args.target!r}"
    else:
        title += f", regression of {args.target!r}"
        if args.hidden is None and _linear_r2(train) > 0.9999:
            settings |= {"hidden": [], "lr": 0.05}
            title += "\na linear function explains the training rows: no hidden layer (--hidden 64,64 adds them)"
    extra = {"source": "csv", "preprocessor": train.preprocessor.to_dict()}
    return Source(train, test, task, settings, extra, title)


SOURCES = {"digits": digits, "mnist": mnist, "csv": csv}


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _linear_r2(part) -> float:
    """How much of the variance of y the best linear function of x explains (least squares)."""
    x = np.column_stack([part.x, np.ones(len(part.x))]).astype(np.float64)
    y = part.y.astype(np.float64)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    spread = np.square(y - y.mean(axis=0)).sum()
    return 1 - np.square(rest).sum() / spread if spread else 1.0


def _pixels(table, name: str) -> np.ndarray:
    values = table.numbers(name)
    for row in np.flatnonzero(np.isnan(values)):
        raise DataError(table.where(row, name), expected="a pixel", got="a missing cell", mend="fill it in")
    return values


def inputs_of(path, extra: dict) -> np.ndarray:
    """The rows of a file as the model of ``extra`` takes them.

    Raises:
        DataError: the file is not of the model's kind.
    """
    if "preprocessor" in extra:
        return data.Preprocessor.from_dict(extra["preprocessor"]).transform(data.read_table(path))
    pixels, scale = extra["image"]["pixels"], extra["image"]["scale"]
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:2] in (b"\x1f\x8b", b"\0\0"):  # gzip, or the magic number of IDX
        images = data.read_idx(path)
        images = images.reshape(len(images), math.prod(images.shape[1:]))
    else:
        table = data.read_table(path)
        images = np.column_stack([_pixels(table, name) for name in table.names])
    if images.shape[1] != pixels:
        raise DataError(
            f"{path}", expected=f"{pixels} pixels in a row", got=str(images.shape[1]),
            mend="give an IDX file of images, or a CSV file with a header and one column per pixel",
        )  # fmt: skip
    return (images / scale).astype(np.float32)
