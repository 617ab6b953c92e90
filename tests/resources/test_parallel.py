"""Runs in processes of their own: the same whatever their number, with threads divided, ended by what goes wrong."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import parallel_builds as builds
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, BackendError
from tinynet.kernels import pool
from tinynet.resources import Ensemble, cross_validate, ensemble
from tinynet.resources.parallel.processes import VARIABLES, divided, run_all
from tinynet.resources.parallel.validation import fold_numbers

DIGITS, TEST = tn.data.digits()
FEW = DIGITS[:300]
LINE = DIGITS.x[:60, 2:4], DIGITS.x[:60, 2:3]
two = pytest.mark.skipif(pool.affinity() < 2, reason="this process may use one processor only")


def numbers(fold):
    """All of a fold that does not depend on the clock."""
    timed = ("seconds", "samples_per_second")
    rows = [{name: value for name, value in row.items() if name not in timed} for row in fold.history]
    return fold.scores, fold.train_scores, fold.samples, rows


# ---- cross-validation ----


@two
def test_results_do_not_depend_on_the_number_of_processes():
    options = {"folds": 3, "seed": 5, "loss": "cross_entropy", "epochs": 4}
    one, both = (cross_validate(builds.classifier, FEW, processes=n, **options) for n in (1, 2))
    assert [numbers(fold) for fold in one.folds] == [numbers(fold) for fold in both.folds]
    assert len({fold.worker.process for fold in one.folds}) == 1 == one.processes
    assert len({fold.worker.process for fold in both.folds}) <= 2 == both.processes
    assert {fold.worker.threads for fold in one.folds + both.folds} == {1}
    assert os.getpid() not in {fold.worker.process for fold in both.folds}

    assert sum(fold.samples for fold in one.folds) == len(FEW)
    values = [fold.scores["accuracy"] for fold in one.folds]
    assert one.scores["accuracy"] == values and min(values) > 0.4
    mean = sum(values) / 3
    assert one.mean["accuracy"] == pytest.approx(mean, rel=1e-12)
    assert one.std["accuracy"] ** 2 == pytest.approx(sum((v - mean) ** 2 for v in values) / 2, rel=1e-9)
    assert f"{mean:.4f}" in str(one) and "3 folds" in repr(one)


@pytest.mark.parametrize(("n", "folds"), [(300, 5), (299, 4), (7, 7), (10, 3)])
def test_folds_are_equal_and_stratified(n, folds):
    data = DIGITS[:n]
    found = fold_numbers(data, folds, seed=3)
    sizes = [int((found == i).sum()) for i in range(folds)]
    assert sum(sizes) == n and max(sizes) - min(sizes) <= 1
    for label in range(10):
        parts = [int(((found == i) & (data.y == label)).sum()) for i in range(folds)]
        assert max(parts) - min(parts) <= 1, (label, parts)
    assert (found == fold_numbers(data, folds, seed=3)).all()
    assert n == folds or (found != fold_numbers(data, folds, seed=4)).any()  # one of each class in its own fold


def test_folds_without_classes_are_equal():
    found = fold_numbers(tn.data.Dataset(DIGITS.x[:50], DIGITS.x[:50]), 4, seed=0)
    assert sorted(int((found == i).sum()) for i in range(4)) == [12, 12, 13, 13]
    assert sorted(found) != found.tolist()


def test_an_error_comes_back_with_its_fold_and_ends_the_others():
    with pytest.raises(ArgumentError, match="seed 12") as caught:
        cross_validate(builds.failing, LINE, folds=3, processes=1, seed=10, loss="mse")
    assert caught.value.__notes__ == ["cross_validate, fold 2"]


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 1}, {"folds": 61}, {"folds": 2.5}, {"processes": 0}, {"processes": 10**6}, {"threads": 0},
        {"threads": 10**6}, {"seed": -1}, {"epoch": 3}, {"resume": "run"}, {"build": lambda seed: None}, {"build": 3},
        {"loss": lambda a, b: a}, {"dataset": 3},
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_before_a_process_begins(options, monkeypatch):
    monkeypatch.setattr("tinynet.resources.parallel.validation.run_all", None)
    given = {"build": builds.line, "dataset": LINE, "loss": "mse"} | options
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        cross_validate(given.pop("build"), given.pop("dataset"), **given)


@pytest.mark.parametrize(
    ("build", "options", "words"),
    [
        (builds.nothing, {}, "build to return a model"), (builds.bare, {"epochs": 1}, "no loss, optimizer"),
        (builds.line, {"loss": "mse", "epochs": 0}, None),
    ],
)  # fmt: skip
def test_what_a_build_returns_is_checked(build, options, words):
    from tinynet.resources.parallel.runs import Recipe

    recipe, data = Recipe.checked("cross_validate", build, options), tn.data.Dataset(*LINE)
    if words is None:  # options of build come before
        assert len(recipe.train(0, data).history) == 3
        return
    with pytest.raises(ArgumentError, match=words):
        recipe.train(0, data)


# ---- ensembles ----


def test_members_are_what_can_be_made_by_hand():
    found = ensemble(builds.classifier, FEW, members=2, processes=1, seed=7, loss="cross_entropy", epochs=4)
    tn.set_num_threads(1)
    try:
        for i, member in enumerate(found.models):
            tn.seed(7 + i)
            model, optimizer = builds.classifier(7 + i)
            tn.fit(model, FEW, loss="cross_entropy", optimizer=optimizer, epochs=4, seed=7 + i)
            for name, value in model.state_dict().items():
                assert value.tobytes() == member.state_dict()[name].tobytes()
    finally:
        tn.set_num_threads(None)
    assert len(found) == len(found.histories) == len(found.workers) == 2 and found.classifies
    each, mean = found.predict_each(TEST.x), found.predict(TEST)
    assert mean.shape == (len(TEST), 10) and mean.sum(axis=-1) == pytest.approx(1, rel=1e-5)
    assert mean == pytest.approx((each[0] + each[1]) / 2, abs=1e-6)
    assert found.spread(TEST) == pytest.approx(abs(each[0] - each[1]) / 2, abs=1e-6)


def test_data_on_disk_is_read_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("tinynet.resources.parallel.runs.store", None)
    stored = tn.data.store(tmp_path / "few", FEW)
    found = ensemble(builds.classifier, stored, members=1, processes=1, loss="cross_entropy", epochs=3)
    losses = found.histories[0]["loss"]
    assert losses[-1] < losses[0] and found.classifies
    with pytest.raises(ArgumentError, match="in memory"):
        cross_validate(builds.classifier, stored, loss="cross_entropy", epochs=3)


def test_an_ensemble_is_less_wrong_than_its_members_are_on_average():
    """By convexity of the loss, whatever the members: Jensen's inequality."""
    models = []
    for i in range(4):
        tn.seed(i)
        model, optimizer = builds.classifier(i)
        tn.fit(model, FEW, loss="cross_entropy", optimizer=optimizer, epochs=6)
        models.append(model)
    together = Ensemble(models, classifies=True)
    loss = lambda p: -tn.log(tn.tensor(p[range(len(TEST)), TEST.y])).mean().item()
    assert loss(together.predict(TEST)) < sum(map(loss, together.predict_each(TEST))) / 4


def test_an_ensemble_of_regressions_averages_outputs():
    tn.seed(0)
    models = [tn.nn.Dense(2, 1) for _ in range(3)]
    found = Ensemble(models, classifies=False)
    assert found.predict(LINE[0]) == pytest.approx(sum(tn.predict(m, LINE[0]) for m in models) / 3, rel=1e-6)
    with pytest.raises(ArgumentError, match="at least one"):
        Ensemble([], classifies=True)
    with pytest.raises(ArgumentError, match="members"):
        ensemble(builds.line, LINE, members=0, loss="mse")


# ---- processes ----


@two
def test_threads_are_divided_and_the_environment_is_left_as_it_was():
    before = {name: os.environ.get(name) for name in VARIABLES}
    found = run_all("test", builds.threads, [(i,) for i in range(4)], processes=2, threads=1)
    assert {name: os.environ.get(name) for name in VARIABLES} == before
    assert len({process for process, *_ in found}) <= 2
    for _, threads, variable, blas in found:
        assert (threads, variable) == (1, "1") and all(n == 1 for n in blas)


def test_processes_times_threads_is_at_most_the_processors(monkeypatch):
    monkeypatch.setattr(pool, "affinity", lambda: 8)
    assert [divided("test", 5, None, threads) for threads in (1, 2, 3, 8)] == [5, 4, 2, 1]
    assert divided("test", 5, 6, 1) == 5 and divided("test", 5, 2, 4) == 2
    for processes, threads in ((9, 1), (3, 3), (None, 9)):
        with pytest.raises(ArgumentError, match="at most 8"):
            divided("test", 5, processes, threads)


def test_a_process_that_is_ended_is_told():
    with pytest.raises(BackendError, match="ended from outside"):
        run_all("test", builds.leave, [(0,)], processes=1, threads=1)


_SLEEPS = """
    import signal
    import sys
    import parallel_builds as builds
    from tinynet.resources.parallel.processes import run_all

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background has not
        run_all("test", builds.sleep, [(sys.argv[1],)], processes=1, threads=1)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_ends_all(tmp_path):
    script, told = tmp_path / "sleeps.py", tmp_path / "process"
    script.write_text(textwrap.dedent(_SLEEPS))
    path = os.pathsep.join(filter(None, [str(Path(builds.__file__).parent), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, script, told], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        while not (told.exists() and told.read_text().endswith("\n")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        _, errors = process.communicate(timeout=50)
    assert errors.endswith("KeyboardInterrupt\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
