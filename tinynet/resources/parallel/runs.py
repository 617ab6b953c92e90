"""A training run in a process of its own: what is built, from which seed, on which rows."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from tinynet.backend import get_backend, seed, use_backend
from tinynet.data import Dataset, store
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.program import get_num_threads
from tinynet.train import History, fit

_OPTIONS = frozenset(inspect.signature(fit).parameters) - {"model", "train", "seed", "resume"}


class Worker(NamedTuple):
    """The process that a run was made in: its number, its threads, and the seconds that the run took."""

    process: int
    threads: int
    seconds: float


class Trained(NamedTuple):
    """What a run leaves: the model, its history, the loss it was trained with, and where."""

    model: Module
    history: History
    loss: object
    worker: Worker


class Recipe(NamedTuple):
    """How the models of several runs are made.

    Attributes:
        build: seed -> (model, optimizer or dict of options for ``fit``).
        options: for ``fit``, of all runs; those of ``build`` come before them.
        backend: by name.
    """

    where: str
    build: object
    options: dict
    backend: str

    @classmethod
    def checked(cls, where: str, build, options: dict) -> Recipe:
        """Raises ArgumentError for options that ``fit`` does not have, or that are not for it here."""
        if not callable(build):
            raise ArgumentError(where, expected="build, a function of a seed", got=repr(build))
        _known(where, options)
        for callback in options.get("callbacks", ()):
            if getattr(callback, "path", None) is not None or getattr(callback, "folder", None) is not None:
                raise ArgumentError(
                    where, expected="callbacks that write no file: all runs would write the same one",
                    got=type(callback).__name__, mend="have build return (model, {'callbacks': [...]}), each its own",
                )  # fmt: skip
        return cls(where, build, options, get_backend().name)

    def train(self, number: int, train: Dataset) -> Trained:
        """Seeds everything with the number, builds, and trains."""
        start = time.perf_counter()
        with use_backend(self.backend):
            seed(number)
            model, own = self._built(number)
            options = {**self.options, **own}
            missing = {"loss", "optimizer", "epochs"} - options.keys()
            if missing:
                raise ArgumentError(self.where, expected="options for fit", got=f"no {', '.join(sorted(missing))}")
            history = fit(model, train, seed=number, **options)
        model.zero_grad()
        worker = Worker(os.getpid(), get_num_threads(), time.perf_counter() - start)
        return Trained(model, history, options["loss"], worker)

    def _built(self, number: int) -> tuple[Module, dict]:
        built = self.build(number)
        pair = built if isinstance(built, tuple) and len(built) == 2 else (built, {})
        model, own = pair
        own = {"optimizer": own} if isinstance(own, (str, Optimizer)) else own
        if not isinstance(model, Module) or not isinstance(own, dict):
            raise ArgumentError(
                self.where, expected="build to return a model, or (model, optimizer or dict of options for fit)",
                got=repr(built)[:200],
            )  # fmt: skip
        _known(self.where, own)
        return model, own


def _known(where: str, options: dict) -> None:
    wrong = sorted(options.keys() - _OPTIONS)
    if wrong:
        raise ArgumentError(
            where, expected=f"options of fit: {', '.join(sorted(_OPTIONS))}", got=", ".join(wrong),
            mend="seeds are those of the runs, and only a single run can be resumed",
        )  # fmt: skip


@contextlib.contextmanager
def shared(data: Dataset) -> Iterator[Dataset]:
    """The data on disk, from where other processes read it: written once to a temporary folder, if it is in memory."""
    if data.on_disk:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="tinynet-") as folder:
        yield store(os.path.join(folder, "data"), data)
