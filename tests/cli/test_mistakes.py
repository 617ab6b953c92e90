"""Every mistake of a user is a status of 1, one clear line on stderr that says where, and no file written."""

import json
import os

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main

LINE = "x,y\n" + "".join(f"{i},{3 * i + 1}\n" for i in range(40))
KINDS = "size,kind\n" + "".join(f"{i % 7},{'small' if i % 7 < 4 else 'large'}\n" for i in range(40))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYNET_BACKEND", raising=False)
    (tmp_path / "line.csv").write_text(LINE)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, of a table and of the digits, made once."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "kinds.csv").write_text(KINDS)
    for source, *rest in (("csv", folder / "kinds.csv", "--target", "kind"), ("digits", "--hidden", 8)):
        args = ["train", source, *rest, "--epochs", 1, "--out", folder / source]
        assert main([str(arg) for arg in args]) == 0
    return folder


@pytest.fixture
def fails(folder, capsys):
    """Runs a command that has to fail, and returns what it says."""

    def run(*args):
        before = sorted(folder.rglob("*"))
        capsys.readouterr()
        status = main([str(arg) for arg in args])
        shown = capsys.readouterr()
        assert status == 1
        assert shown.err.startswith(f"tinynet {args[0]}: ") and shown.err.endswith("\n")
        lines = shown.err.splitlines()
        assert len(lines) == 1 or all(line.startswith("  ") for line in lines[1:]), shown.err
        assert "Traceback" not in shown.err
        assert sorted(folder.rglob("*")) == before, "nothing is written on an error"
        return shown.err

    return run


def train(fails, *options, target="y"):
    return fails("train", "csv", "line.csv", "--target", target, "--out", "run", *options)


OPTIONS = {
    "--epochs": ("0", "at least 1"),
    "--batch": ("0", "at least 1"),
    "--lr": ("0", "lr above 0"),
    "--weight-decay": ("-1", "weight_decay"),
    "--seed": ("-1", "0 to 2\\*\\*64|integer from 0"),
    "--holdout": ("1", "holdout"),
    "--backend": ("pytorch", "numpy, cupy"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_number_out_of_range_is_refused_before_anything_is_written(fails, option):
    import re

    value, says = OPTIONS[option]
    said = train(fails, f"{option}={value}")
    assert re.search(says, said) and value in said


def test_a_backend_named_by_the_environment_is_checked_too(fails, monkeypatch):
    from tinynet.backend import choice

    monkeypatch.setattr(choice, "_process", None)
    monkeypatch.setenv("TINYNET_BACKEND", "abacus")
    assert "'abacus'" in train(fails)


def test_an_unknown_target_is_answered_with_the_nearest_name(fails, folder):
    (folder / "line.csv").write_text("area,price\n1,2\n2,3\n")
    said = train(fails, target="pirce")
    assert "line.csv" in said and "id you mean 'price'" in said


FILES = {
    "a wide row": ("x,y\n1,2\n2,3,4\n", "line 3"),
    "a narrow row after a quoted line break": ('x,y\n"1\n",2\n3\n', "line 4"),
    "an open quote": ('x,y\n1,2\n"2,3\n', "line 3"),
    "a name twice": ("x,x\n1,2\n", "'x'"),
    "an empty name": ("x,\n1,2\n", "line 1"),
    "nothing": ("", "empty"),
    "not text": (b"x,y\n\xff\xfe,2\n", "UTF-8"),
    "only the target": ("y\n1\n2\n", "'y'"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_faulty_table_is_named_with_its_line(fails, folder, what):
    content, says = FILES[what]
    (folder / "line.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    said = train(fails)
    assert "line.csv" in said and says in said


def test_text_cannot_be_the_target_of_a_regression(fails, folder):
    (folder / "line.csv").write_text(KINDS)
    said = fails("train", "csv", "line.csv", "--target", "kind", "--task", "regression", "--out", "run")
    assert "line.csv" in said and "kind" in said


def test_mnist_files_that_are_missing_cut_or_none_are_named(fails, folder):
    name = "train-images-idx3-ubyte"
    said = fails("train", "mnist", "--data", "nowhere", "--out", "run")
    assert "nowhere" in said
    for content in (b"not IDX at all", b"\0\0\x08\x03" + np.array([10, 28, 28], ">u4").tobytes() + b"\1" * 100):
        (folder / name).write_bytes(content)
        assert name in fails("train", "mnist", "--data", ".", "--no-verify", "--out", "run")


def test_a_folder_that_cannot_be_made_is_named(fails, folder):
    (folder / "taken").write_text("a file")
    said = fails("train", "csv", "line.csv", "--target", "y", "--out", "taken", "--epochs", "1")
    assert "taken" in said


# ---- predict ----


def test_predictions_do_not_need_the_target_and_take_columns_in_any_order(runs, folder, capsys):
    (folder / "new.csv").write_text("colour,size\nred,1\nblue,6\n")
    assert main(["predict", str(runs / "csv"), "new.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction,probability" and len(lines) == 3
    assert main(["predict", str(runs / "csv" / "model.safetensors"), "new.csv", "--out", "out.csv"]) == 0
    assert (folder / "out.csv").read_text().splitlines() == lines


def test_predict_says_which_file_is_wrong(runs, fails, folder):
    (folder / "text.csv").write_text("size\n1\nhuge\n")
    (folder / "other.csv").write_text("width\n1\n")
    (folder / "ragged.csv").write_text("size\n1\n2,3\n")
    assert "text.csv, line 3" in fails("predict", runs / "csv", "text.csv")
    assert "'size'" in fails("predict", runs / "csv", "other.csv")
    assert "ragged.csv, line 3" in fails("predict", runs / "csv", "ragged.csv")
    assert "none.csv" in fails("predict", runs / "csv", "none.csv")
    assert "'tinynet train' wrote" in fails("predict", folder, "text.csv")
    (folder / "broken").write_bytes(b"no model")
    assert "broken" in fails("predict", "broken", "text.csv")


def test_images_of_another_size_or_with_holes_are_refused(runs, fails, folder):
    header = ",".join(f"p{i}" for i in range(64))
    (folder / "small.csv").write_text("a,b\n1,2\n")
    (folder / "hole.csv").write_text(f"{header}\n{','.join('1' * 63)},\n")
    labels = b"\0\0\x08\x01" + np.array([4], ">u4").tobytes() + bytes(4)
    (folder / "labels").write_bytes(labels)
    (folder / "cut").write_bytes(labels[:6])
    for name, says in (("small.csv", "64 pixels"), ("hole.csv", "line 2"), ("labels", "64 pixels"), ("cut", "cut")):
        said = fails("predict", runs / "digits", name)
        assert name in said and says in said
    assert "none.idx" in fails("predict", runs / "digits", "none.idx")


def test_predictions_that_cannot_be_written_name_the_place(runs, fails, folder):
    (folder / "new.csv").write_text("size\n1\n")
    assert "nowhere" in fails("predict", runs / "csv", "new.csv", "--out", "nowhere/out.csv")


# ---- resume ----


CONFIGS = {
    "no JSON": "{",
    "a list": "[]",
    "no settings": "{}",
    "settings that are a list": '{"settings": []}',
    "no source": '{"settings": {}}',
    "an unknown source": '{"settings": {"source": "imagenet"}}',
    "too few settings": '{"settings": {"source": "digits"}}',
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_run_with_a_damaged_configuration_is_refused(fails, folder, what):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(CONFIGS[what])
    (folder / "run" / "checkpoint.safetensors").write_bytes(b"")
    assert "no usable config.json" in fails("resume", "run")


def test_a_folder_that_is_no_run_or_a_complete_one_is_refused(fails, folder, runs):
    assert "no usable config.json" in fails("resume", "nowhere")
    assert "no usable config.json" in fails("resume", "line.csv")
    assert "complete" in fails("resume", runs / "csv")


def test_a_damaged_checkpoint_is_refused(fails, folder, runs):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_bytes((runs / "digits" / "config.json").read_bytes())
    (folder / "run" / "checkpoint.safetensors").write_bytes(b"cut")
    assert "checkpoint.safetensors" in fails("resume", "run")
    tn.save(tn.nn.Dense(2, 2), folder / "run" / "checkpoint.safetensors")
    assert "training run" in fails("resume", "run")


# ---- what is no mistake ----


@pytest.mark.parametrize("sizes, shown", [("none", "1-1"), ("5", "1-5-1"), ("6,3", "1-6-3-1")])
def test_hidden_layers_are_as_asked_for(folder, capsys, sizes, shown):
    assert main(["train", "csv", "line.csv", "--target", "y", "--hidden", sizes, "--epochs", "1", "--out", "run"]) == 0
    assert f"network {shown}, " in capsys.readouterr().out


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "gd"])
def test_the_same_seed_writes_the_same_model(folder, optimizer):
    states = []
    for out, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        args = ["--target", "y", "--hidden", "4", "--dropout", "0.2", "--epochs", "3", "--optimizer", optimizer]
        assert main(["train", "csv", "line.csv", *args, "--seed", seed, "--out", out]) == 0
        states.append(tn.load(folder / out / "model.safetensors").state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert any((states[0][name] != states[2][name]).any() for name in states[0])


def test_a_loss_that_is_not_a_number_is_told(folder, capsys):
    args = ["--target", "y", "--hidden", "4", "--lr", "1e30", "--optimizer", "gd", "--epochs", "9", "--out", "run"]
    assert main(["train", "csv", "line.csv", *args]) == 0
    assert "stopped" in capsys.readouterr().out
    assert "loss is" in json.loads((folder / "run" / "history.json").read_text())["stopped"]


def test_two_runs_without_a_name_get_folders_of_their_own(folder):
    for _ in range(2):
        assert main(["train", "csv", "line.csv", "--target", "y", "--epochs", "1"]) == 0
    assert len(os.listdir(folder / "runs")) == 2
