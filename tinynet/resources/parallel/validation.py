"""``cross_validate``: how well a model does on data it has not seen, fold by fold."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from tinynet.data import Dataset
from tinynet.data.sampling import check_seed, split_indices
from tinynet.errors import ArgumentError
from tinynet.train import History, evaluate
from tinynet.train.evaluating import as_dataset

from .processes import divided, require_picklable, run_all
from .runs import Recipe, Worker, shared


class Fold(NamedTuple):
    """One run: trained on all folds but one, judged on that.

    Attributes:
        scores: of the fold that was left out, as ``tn.evaluate`` gives them.
        train_scores: of the data it was trained on.
        samples: in the fold that was left out.
        history: of the training.
        worker: process, threads and seconds.
    """

    scores: dict[str, float]
    train_scores: dict[str, float]
    samples: int
    history: History
    worker: Worker


class CrossValidation:
    """The scores of all folds.

    Attributes:
        folds: a ``Fold`` each, in their order.
        scores: name -> one number for each fold.
        mean, std: name -> the mean over the folds, and their standard deviation (of a sample: over folds - 1).
        processes: how many worked on them.
    """

    def __init__(self, folds: list[Fold], processes: int):
        self.folds, self.processes = folds, processes
        self.scores = {name: [fold.scores[name] for fold in folds] for name in folds[0].scores}
        self.mean = {name: statistics.fmean(values) for name, values in self.scores.items()}
        self.std = {name: statistics.stdev(values) for name, values in self.scores.items()}

    def __str__(self) -> str:
        names = list(self.scores)
        lines = ["fold  samples" + "".join(f"  {name:>10}" for name in names) + "  loss in training  seconds"]
        for i, fold in enumerate(self.folds):
            values = "".join(f"  {fold.scores[name]:>10.4f}" for name in names)
            lines.append(
                f"{i:>4}  {fold.samples:>7,}{values}  {fold.train_scores['loss']:>16.4f}  {fold.worker.seconds:>7.2f}"
            )
        lines.append("mean         " + "".join(f"  {self.mean[name]:>10.4f}" for name in names))
        lines.append("std          " + "".join(f"  {self.std[name]:>10.4f}" for name in names))
        return "\n".join(lines)

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {self.mean[name]:.4g} ± {self.std[name]:.2g}" for name in self.scores)
        return f"CrossValidation({len(self.folds)} folds; {scores})"


def fold_numbers(data: Dataset, folds: int, seed: int):
    """Divides the rows at random into folds of equal size, to within one; each class too, where ``y`` names classes.

    Returns:
        The number of the fold of each row: a host array of integers, shape (n,).
    """
    rest, _ = split_indices(len(data), 1.0, seed)  # all rows
    numbers, labels = 0 * rest, (data.y if data.has_labels else None)
    for fold in range(folds - 1):
        share = 1 / (folds - fold)
        first, second = split_indices(len(rest), share, seed, None if labels is None else labels[rest])
        numbers[rest[first]] = fold
        rest = rest[second]
    numbers[rest] = folds - 1
    return numbers


def cross_validate(
    build, dataset, folds: int = 5, processes: int | None = None, seed: int = 0, *, threads: int = 1, **options
) -> CrossValidation:  # fmt: skip
    """Trains a model on all folds of the data but one, and judges it on that, for each fold; in several processes.

    What comes out is the same, to the bit, however many processes there are. Fold i is what ``tn.seed(seed + i)``,
    ``build(seed + i)`` and ``tn.fit(..., seed=seed + i)`` make. A script that calls this must do so under
    ``if __name__ == "__main__":``, because each process imports it anew.

    Args:
        build: a function seed -> (model, options), at the top level of a module. The options are a dict for ``fit``, or
            an optimizer, or its name; they may be left out.
        dataset: a ``Dataset`` or a pair (x, y), in memory. It is written to a temporary folder once, from which each
            process reads its rows.
        folds: from 2 up to the number of samples. With class indices for ``y``, each class is spread evenly.
        processes: how many runs are under way at once; as many as the processors allow by default.
        seed: of the folds and of the runs.
        threads: of each process; its BLAS keeps to it as well. processes times threads is at most the number of
            processors that this process may use.
        options: for ``fit``: loss, epochs, batch_size and so on. Each run has callbacks of its own, copies of those
            given, and does not see the fold it is judged on, by which it could be stopped at the best moment.

    Raises:
        ArgumentError: numbers out of range, options that ``fit`` does not have, or what cannot be sent to a process.
        BackendError: a process could not begin, or was ended from outside. What a run raises comes back with a note
            that names the fold; all others are ended then, as they are by Ctrl-C.
    """
    where = "cross_validate"
    data = as_dataset(where, dataset)
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(data):
        raise ArgumentError(where, expected=f"folds from 2 to {len(data)}, the number of samples", got=repr(folds))
    if data.on_disk:
        raise ArgumentError(where, expected="a data set in memory", got="one on disk", mend="pass rows of it: data[:n]")
    seed = check_seed(seed, where)
    check_seed(seed + folds - 1, where)
    processes = divided(where, folds, processes, threads)
    recipe = Recipe.checked(where, build, options)
    require_picklable(where, build=build, **options)
    numbers = fold_numbers(data, folds, seed)
    with shared(data) as stored:
        tasks = [(recipe, stored, numbers, i, seed + i) for i in range(folds)]
        found = run_all(where, _fold, tasks, processes=processes, threads=threads, kind="fold")
    return CrossValidation(found, processes)


def _fold(recipe: Recipe, stored: Dataset, numbers, fold: int, seed: int) -> Fold:
    held, train = stored[numbers == fold], stored[numbers != fold]
    trained = recipe.train(seed, train)
    scores, train_scores = (evaluate(trained.model, part, trained.loss) for part in (held, train))
    return Fold(scores, train_scores, len(held), trained.history, trained.worker)
