"""``tinynet train`` and ``tinynet resume``: from a data set to a folder with model, history and configuration."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time

import numpy as np

import tinynet as tn
from tinynet import train as training
from tinynet.errors import ArgumentError, DataError
from tinynet.meters import memory
from tinynet.train.safetensors import atomic_write

from .budgets import Budgets
from .sources import SOURCES, Source

_SETTINGS = {"activation", "backend", "batch", "dropout", "epochs", "hidden", "lr", "optimizer", "seed", "weight_decay"}
OPTIMIZERS = ("adam", "adamw", "gd")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "softplus")


def add_parsers(commands) -> None:
    parser = commands.add_parser("train", help="train a network and write the run into a folder")
    sources = parser.add_subparsers(dest="source", required=True, metavar="DATA")
    digits = sources.add_parser("digits", help="the 8x8 handwritten digits inside the package")
    mnist = sources.add_parser("mnist", help="MNIST, from a folder with its four IDX files (plain or .gz)")
    mnist.add_argument("--data", required=True, metavar="DIR", help="the folder")
    mnist.add_argument("--no-verify", action="store_true", help="take files whose checksums are not MNIST's")
    csv = sources.add_parser("csv", help="a CSV file with a header")
    csv.add_argument("file", metavar="FILE")
    csv.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
    csv.add_argument("--task", choices=("regression", "classification"), help="by default the target column decides")
    csv.add_argument("--holdout", type=float, default=0.2, metavar="PART", help="part of the rows to test with (0.2)")
    for each in (digits, mnist, csv):
        _add_settings(each)
    resume = commands.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("folder", metavar="RUN")
    resume.set_defaults(run=_resume)


def _add_settings(parser) -> None:
    add = parser.add_argument
    add("--hidden", type=sizes, metavar="N,N", help="sizes of the hidden layers, or 'none'")
    add("--activation", choices=ACTIVATIONS, default="relu", help="of the hidden layers (relu)")
    add("--dropout", type=float, metavar="P", help="probability of a zero after each hidden layer")
    add("--epochs", type=int, metavar="N")
    add("--batch", type=int, metavar="N", help="samples per step")
    add("--lr", type=float, metavar="RATE", help="peak of the one-cycle schedule")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="(adam)")
    add("--weight-decay", type=float, default=0.0, metavar="RATE")
    add("--seed", type=int, default=0, help="of weights, dropout, shuffling and the split (0)")
    add("--backend", help="numpy or cupy; by default TINYNET_BACKEND, or numpy")
    add("--memory", metavar="SIZE", help="budget of a step beyond parameters, moments and batch, such as 8MB or 64MiB")
    add("--time", metavar="TIME", help="budget of training, such as 30s, 10min or 2h; what is best by then is kept")
    add("--energy", metavar="ENERGY", help="budget of training, such as 500J, 2kJ or 0.1kWh")
    add("--out", metavar="DIR", help="folder for the run; by default a new one in runs/")
    parser.set_defaults(run=_train)


def sizes(text: str) -> list[int]:
    """Sizes of layers as the command line gives them."""
    if text in ("none", "0", ""):
        return []
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected sizes such as 64,64 or 'none', got {text!r}")
    return found


def _train(args) -> None:
    folder = args.out or _new_folder(args.source)
    settings = {name: value for name, value in vars(args).items() if name not in ("run", "command", "out")}
    _work(settings, folder, resume=False)


def _resume(args) -> None:
    path = os.path.join(args.folder, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)["settings"]
        if settings["source"] not in SOURCES or not settings.keys() >= _SETTINGS:
            raise ValueError("not all settings")
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            args.folder, expected="a folder that 'tinynet train' wrote", got=f"no usable config.json ({error})"
        ) from error
    if not os.path.exists(os.path.join(args.folder, "checkpoint.safetensors")):
        raise DataError(args.folder, expected="a run to go on with", got="one that is complete, or never began")
    _work(settings, args.folder, resume=True)


def _new_folder(source: str) -> str:
    name = os.path.join("runs", f"{source}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder, n = name, 1
    while os.path.exists(folder):
        folder, n = f"{name}-{n}", n + 1
    return folder


def _work(settings: dict, folder: str, resume: bool) -> None:
    """Trains and reports. ``settings`` are the command line's, which ``config.json`` keeps for ``resume``."""
    args = argparse.Namespace(**settings)
    with tn.use_backend(tn.get_backend(args.backend)):
        tn.seed(args.seed)
        source = SOURCES[args.source](args)
        chosen = {name: getattr(args, name) for name in source.defaults if getattr(args, name, None) is not None}
        chosen = source.defaults | chosen
        print(source.title)
        model = _model(source, args.activation, chosen)
        shown = "-".join(map(str, [source.train.x.shape[1], *chosen["hidden"], source.outputs]))
        parameters = sum(p.size for p in model.parameters())
        print(f"network {shown}, {parameters:,} parameters, on {model.parameters()[0].backend.name}")
        optimizer = _optimizer(model, args, chosen, len(source.train))
        loader = tn.data.Loader(source.train, chosen["batch"], seed=args.seed)
        # runs of older versions have no such settings
        budgets = Budgets(*(getattr(args, name, None) for name in ("memory", "time", "energy")))
        if model.parameters()[0].backend.captures:
            print(budgets.planned(model, source, optimizer, min(chosen["batch"], len(source.train))))
        os.makedirs(folder, exist_ok=True)  # nothing is written before everything has been found right
        _write_json(folder, "config.json", {"settings": settings, "chosen": chosen, "environment": _environment()})
        checkpoint = os.path.join(folder, "checkpoint.safetensors")
        start = time.perf_counter()
        history = tn.fit(
            model,
            loader,
            loss=source.loss,
            optimizer=optimizer,
            epochs=chosen["epochs"],
            callbacks=[
                training.Progress(),
                training.CSVLog(os.path.join(folder, "history.csv")),
                training.Checkpoint(checkpoint, every=max(1, chosen["epochs"] // 10), extra=source.extra),
                # norms of gradients take memory that no budget knows of
                tn.resources.Monitor(os.path.join(folder, "monitor.jsonl"), gradients=budgets.memory is None),
                tn.resources.Record(folder, limits=False),  # the report measures them
                *budgets.callbacks,
            ],
            resume=checkpoint if resume else None,
            memory=budgets.memory,
        )
        seconds = time.perf_counter() - start
        history.save(os.path.join(folder, "history.json"))
        tn.save(model, os.path.join(folder, "model.safetensors"), source.extra)
        if history.stopped == "interrupted":
            print(
                f"interrupted in epoch {len(history) + 1} of {chosen['epochs']}; go on with:  tinynet resume {folder}"
            )
        else:
            os.unlink(checkpoint)
        metrics = _report(model, source, history, seconds, parameters, folder, budgets)
        _write_json(folder, "metrics.json", metrics)
        if history.stopped == "interrupted":
            raise KeyboardInterrupt  # for the exit status


def _model(source: Source, activation: str, chosen: dict) -> tn.nn.Module:
    layers: list = []
    features = source.train.x.shape[1]
    for size in chosen["hidden"]:
        layers.append(tn.nn.Dense(features, size, activation))
        if chosen["dropout"]:
            layers.append(tn.nn.Dropout(chosen["dropout"]))
        features = size
    return tn.nn.Sequential(*layers, tn.nn.Dense(features, source.outputs))


def _optimizer(model, args, chosen: dict, samples: int) -> tn.optim.Optimizer:
    for name in ("epochs", "batch"):
        if chosen[name] < 1:
            raise ArgumentError(f"--{name}", expected="at least 1", got=str(chosen[name]))
    steps = chosen["epochs"] * -(-samples // chosen["batch"])
    lr = tn.optim.one_cycle(chosen["lr"], steps)
    if args.optimizer == "gd":
        return tn.optim.GD(model.parameters(), lr, momentum=0.9, weight_decay=args.weight_decay)
    kind = tn.optim.AdamW if args.optimizer == "adamw" else tn.optim.Adam
    return kind(model.parameters(), lr, weight_decay=args.weight_decay)


def _report(model, source: Source, history, seconds: float, parameters: int, folder: str, budgets: Budgets) -> dict:
    """Prints what came of it, and returns the same as numbers."""
    part, name = (source.test, "test") if len(source.test) else (source.train, "training")
    metrics: dict = {name: tn.evaluate(model, part, source.loss)}
    lines = [("stopped", history.stopped)] if history.stopped else []
    if not len(source.test):
        lines.append(("held-out rows", f"none: {len(source.train)} rows are too few to hold some out"))
    if source.task == "classification":
        accuracy = metrics[name]["accuracy"]
        lines.append((f"{name} accuracy", f"{accuracy:.2%}  ({round(accuracy * len(part)):,} of {len(part):,} right)"))
    else:
        target = source.train.preprocessor.target_column
        error = float(np.sqrt(metrics[name]["loss"])) * target.scale
        metrics[name]["rmse"] = error
        lines.append((f"{name} error", f"{error:.4g} root mean square  (R2 {metrics[name]['r2']:.6f})"))
        if len(model) == 1:
            lines.append(("found", _equation(model[0], source.train.preprocessor)))
    trained = sum(row["seconds"] for row in history)
    rate = len(source.train) * len(history) / trained if trained else 0.0
    peak = memory.peak()
    metrics |= {"samples_per_second": rate, "seconds": seconds, "parameters": parameters, "peak_memory": peak or 0}
    metrics |= {"budgets": used} if (used := budgets.to_dict()) else {}
    lines += [
        ("speed", f"{rate:,.0f} samples per second  ({len(history)} epochs in {seconds:.1f} s)"),
        ("parameters", f"{parameters:,}"),
        ("peak memory", f"{peak / 1e6:,.0f} MB" if peak else "not measured here"),
        *budgets.lines(),
        ("run", f"{folder}: model.safetensors, history.json, history.csv, metrics.json, config.json"),
        ("to look at", f"tinynet report {folder}"),
    ]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        print(f"{label.ljust(width)}  {text}")
    return metrics


def _equation(layer, preprocessor) -> str:
    """The linear function that a single layer has learnt, in the units of the file, to about five digits."""
    target = preprocessor.target_column
    weight, intercept = layer.weight.numpy()[:, 0].astype(float) * target.scale, float(layer.bias.numpy()[0])
    intercept = intercept * target.scale + target.mean
    terms, at = [], 0
    for column in preprocessor.columns:
        scale, mean = getattr(column, "scale", 1.0), getattr(column, "mean", 0.0)
        for feature in column.feature_names:
            slope = weight[at] / scale
            intercept -= slope * mean
            terms.append(f"{_rounded(slope, target.scale / scale)} {feature}")
            at += 1
    shown = terms if len(terms) <= 12 else [*terms[:12], f"... ({len(terms)} terms)"]
    return f"{target.name} = {' + '.join([*shown, _rounded(intercept, target.scale)])}".replace("+ -", "- ")


def _rounded(value: float, unit: float) -> str:
    """``value`` to a ten-thousandth of ``unit``: what is beyond is the rounding of float32."""
    return f"{round(value, 4 - math.floor(math.log10(unit))) + 0.0:.9g}"


def _environment() -> dict:
    return {
        "tinynet": tn.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "system": platform.system(), "processors": os.cpu_count(),
    }  # fmt: skip


def _write_json(folder: str, name: str, value) -> None:
    atomic_write(os.path.join(folder, name), [json.dumps(value, indent=1).encode()])
