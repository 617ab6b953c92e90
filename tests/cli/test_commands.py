"""The commands: what they print and write, and that every mistake is one clear line and leaves nothing behind."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args):
    return main([str(arg) for arg in args])


def predictions(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_line(path, n, slope=3.25, intercept=-1.5, unit=1.0):
    x = np.linspace(-4, 4, n)
    rows = "\n".join(f"{a * unit!r},{slope * a + intercept!r}" for a in x.tolist())
    path.write_text(f"x,y\n{rows}\n")


def test_digits_reach_97_percent_and_the_run_is_written(folder, capsys):
    assert run("train", "digits") == 0
    printed = capsys.readouterr().out
    (made,) = (folder / "runs").iterdir()
    metrics = json.loads((made / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.97 and metrics["parameters"] == 9_610
    for label in ("test accuracy", "samples per second", "parameters", "peak memory", str(made.relative_to(folder))):
        assert label in printed
    names = {"model.safetensors", "history.json", "history.csv", "config.json", "metrics.json", "monitor.jsonl"}
    names |= {"plan.json", "instructions.json"}
    assert {path.name for path in made.iterdir()} == names
    assert len(json.loads((made / "history.json").read_text())["epochs"]) == 40
    images = np.concatenate([part.x for part in tn.data.digits()])[:5] * 16
    (folder / "pixels.csv").write_text("\n".join(",".join(map(str, row)) for row in [range(64), *images.tolist()]))
    assert run("predict", made, "pixels.csv", "--out", "labels.csv") == 0
    assert len(predictions("labels.csv")) == 5 and set(predictions("labels.csv")[0]) == {"prediction", "probability"}


def test_the_slope_of_three_points_is_recovered(folder, capsys):
    (folder / "line.csv").write_text("x,y\n1,2\n2,4\n3,6\n")
    assert run("train", "csv", "line.csv", "--target", "y", "--out", "run") == 0
    slope = float(re.search(r"y = (\S+) x", capsys.readouterr().out)[1])
    assert abs(slope - 2) < 1e-3
    (folder / "new.csv").write_text("x\n10\n20\n")
    assert run("predict", "run", "new.csv", "--out", "out.csv") == 0
    low, high = (float(row["prediction"]) for row in predictions("out.csv"))
    assert abs((high - low) / 10 - 2) < 1e-3


def test_the_standardisation_of_the_training_rows_is_saved_and_applied(folder):
    write_line(folder / "line.csv", 200, unit=1000.0)
    assert run("train", "csv", "line.csv", "--target", "y", "--out", "run") == 0
    assert run("predict", "run", "line.csv", "--out", "out.csv") == 0
    rows = predictions("line.csv")
    error = [float(p["prediction"]) - float(row["y"]) for p, row in zip(predictions("out.csv"), rows)]
    assert len(error) == 200 and max(map(abs, error)) < 1e-3
    extra = tn.train.load_extra("run/model.safetensors")
    column = extra["preprocessor"]["columns"][0]
    train = tn.data.csv("line.csv", "y", seed=0)[0]
    assert column["name"] == "x" and column["scale"] == train.preprocessor.columns[0].scale > 1000


def test_classes_categories_quotes_and_missing_values(folder, capsys):
    rng = np.random.default_rng(0)
    with open("pets.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["weight", "colour, coat", "kind"])
        for i in range(160):
            dog = i % 2
            weight = "" if i % 9 == 0 else f"{rng.normal(20 if dog else 4, 1):.2f}"
            writer.writerow([weight, ["grey", 'so-called "red"'][dog], ["cat", "dog"][dog]])
    assert run("train", "csv", "pets.csv", "--target", "kind", "--out", "run", "--epochs", 20) == 0
    assert "classes of 'kind'" in capsys.readouterr().out
    assert run("predict", "run", "pets.csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert np.mean([row["prediction"] == ["cat", "dog"][i % 2] for i, row in enumerate(rows)]) > 0.97
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_mnist_files_are_read_and_predicted_plain_and_packed(folder):
    rng = np.random.default_rng(0)
    for name, n in (("train", 200), ("t10k", 40)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = (rng.integers(0, 40, (n, 28, 28)) + 20 * labels[:, None, None]).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            b"\0\0\x08\x03" + np.array([n, 28, 28], ">u4").tobytes() + images.tobytes()
        )
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"\0\0\x08\x01" + np.array([n], ">u4").tobytes() + labels.tobytes())
    options = ("--data", ".", "--hidden", "32", "--epochs", 2, "--out", "run")
    assert run("train", "mnist", *options) == 1  # the checksums are not MNIST's
    assert not (folder / "run").exists()
    assert run("train", "mnist", *options, "--no-verify") == 0
    assert run("predict", "run", "t10k-images-idx3-ubyte", "--out", "out.csv") == 0
    assert len(predictions("out.csv")) == 40


MISTAKES = {
    "no file": (None, ["x.csv", "--target", "y"], r"x\.csv.*No such file"),
    "nan": ("x,y\n1,2\n2,nan\n3,6\n", ["x.csv", "--target", "y"], r"x\.csv, line 3.*empty"),
    "infinity": ("x,y\n1,2\ninf,3\n3,6\n", ["x.csv", "--target", "y"], r"x\.csv, line 3"),
    "ragged": ("x,y\n1,2\n2\n3,6\n", ["x.csv", "--target", "y"], r"x\.csv, line 3"),
    "unknown target": ("x,price\n1,2\n2,3\n", ["x.csv", "--target", "prise"], r"price"),
    "missing target": ("x,y\n1,2\n2,\n", ["x.csv", "--target", "y"], r"line 3"),
    "no rows": ("x,y\n", ["x.csv", "--target", "y"], r"x\.csv"),
    "cupy": (
        "x,y\n1,2\n2,3\n",
        ["x.csv", "--target", "y", "--backend", "cupy"],
        r"cupy.*(GPU|install tinynet|Install)",
    ),
    "epochs": ("x,y\n1,2\n2,3\n", ["x.csv", "--target", "y", "--epochs", "0"], r"epochs.*at least 1"),
    "dropout": ("x,y\n1,2\n2,3\n", ["x.csv", "--target", "y", "--hidden", "4", "--dropout", "2"], r"from 0 to 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(mistake, folder, capsys):
    content, args, message = MISTAKES[mistake]
    if content is not None:
        (folder / "x.csv").write_text(content)
    if mistake == "cupy":
        try:
            tn.get_backend("cupy")
            pytest.skip("there is a GPU")
        except (tn.errors.BackendError, tn.errors.MissingExtraError):
            pass
    assert run("train", "csv", *args, "--out", "run") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tinynet train: ") and re.search(message, lines[0])
    assert not (folder / "run").exists()


def test_a_wrong_command_line_is_refused_by_the_parser():
    for args in (["train"], ["train", "csv"], ["train", "digits", "--hidden", "a,b"], ["nonsense"]):
        with pytest.raises(SystemExit) as stop:
            run(*args)
        assert stop.value.code == 2


def test_predict_wants_a_run_and_a_file_of_its_kind(folder, capsys):
    write_line(folder / "line.csv", 20)
    assert run("predict", "nowhere", "line.csv") == 1
    assert run("train", "csv", "line.csv", "--target", "y", "--out", "run") == 0
    capsys.readouterr()
    (folder / "other.csv").write_text("z\n1\n")
    assert run("predict", "run", "other.csv") == 1
    assert "'x'" in capsys.readouterr().err
    tn.save(tn.nn.Dense(1, 1), "bare.safetensors")
    assert run("predict", "bare.safetensors", "line.csv") == 1
    assert "says how to read a file" in capsys.readouterr().err
    assert run("resume", "run") == 1
    assert "complete" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_run_resumes_to_the_same_bits(folder):
    command = [sys.executable, "-m", "tinynet", "train", "digits", "--epochs", "30", "--out"]
    subprocess.run([*command, "whole"], check=True, capture_output=True, timeout=120)
    process = subprocess.Popen([*command, "part"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = folder / "part" / "history.csv"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "tinynet resume part" in out and "Traceback" not in err
    tn.load(folder / "part" / "checkpoint.safetensors")
    subprocess.run([sys.executable, "-m", "tinynet", "resume", "part"], check=True, capture_output=True, timeout=120)
    whole, part = (tn.load(folder / name / "model.safetensors").state_dict() for name in ("whole", "part"))
    assert all(np.array_equal(whole[name], part[name]) for name in whole)
    assert not (folder / "part" / "checkpoint.safetensors").exists()
    assert len(log.read_text().splitlines()) == 31
