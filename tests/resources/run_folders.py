"""Folders of runs as training, the monitor and the recorder write them, of made-up numbers; and a hostile one."""

from __future__ import annotations

import json
import math

HOSTILE = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\ud800 " + "w" * 90


def write_run(folder, *, epochs=12, batch=32, speed=1.0, provenance="modelled", text=None, without=()):
    """Writes a run with every file but those in ``without``; with ``text`` in the place of every text."""
    folder.mkdir(parents=True, exist_ok=True)
    said = (lambda words: words) if text is None else (lambda words: text)
    files = {
        "history.json": json.dumps(_history(epochs, batch, speed, said)),
        "config.json": json.dumps(_config(epochs, batch, said)),
        "metrics.json": json.dumps({"test": {"loss": 0.21, "accuracy": 0.9653}, "samples_per_second": 1e5 * speed,
                                    "seconds": epochs / speed, "parameters": 9610, "peak_memory": 366190592}),
        "monitor.jsonl": _lines(_samples(epochs, batch, speed, provenance, said)),
        "decisions.jsonl": _lines(_decisions(batch, said)),
        "plan.json": json.dumps(_plan(batch, said)),
        "instructions.json": json.dumps(_instructions(speed, said)),
    }  # fmt: skip
    for name, written in files.items():
        if name not in without:
            (folder / name).write_text(written)
    return folder


def _lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _history(epochs, batch, speed, said):
    rows = [
        {"epoch": i, "loss": 2.3 * 0.7**i + 0.01, "lr": 0.01 * math.sin(i / epochs * 3), "batch_size": batch,
         "seconds": 1 / speed, "samples_per_second": 1e5 * speed, "valid_loss": 2.3 * 0.75**i + 0.08,
         "valid_accuracy": 1 - 0.8**i, "energy_provenance": said("measured")}
        for i in range(1, epochs + 1)
    ]  # fmt: skip
    return {"epochs": rows, "stopped": said("interrupted")}


def _config(epochs, batch, said):
    return {
        "settings": {"source": said("digits"), "hidden": None, "optimizer": said("adam"), "seed": 0, "memory": None},
        "chosen": {"hidden": [128, 64], "dropout": 0.2, "epochs": epochs, "batch": batch, "lr": 0.01},
        "environment": {"tinynet": "0.1.0", "python": said("3.12.1"), "system": said("Linux"), "machine": "x86_64",
                        "processors": 2},
    }  # fmt: skip


def _samples(epochs, batch, speed, provenance, said):
    for i in range(1, 5 * epochs):
        yield {
            "time": 1.7e9 + i / (5 * speed), "step": 9 * i, "epoch": i // 5, "loss": 2.3 * 0.93**i, "lr": 0.01 / i,
            "batch_size": batch if i < 20 else batch // 2, "samples_per_second": speed * (1e5 + 9e3 * (i % 7)),
            "resident_bytes": 120_000_000 + 400_000 * i, "arena_bytes": 114816, "cpu": 1 + (i % 3) / 10, "gpu": None,
            "joules": None if provenance == "unavailable" else 4.2 * i, "provenance": provenance,
            "energy_note": said("10 to 25 W for each busy core"), "gradient_norm": 1 / i,
        }  # fmt: skip


def _decisions(batch, said):
    reason = said("memory.high fell from 512 MB to 256 MB, into which 16 samples fit by the plan")
    for at, before, after in ((3, batch, batch // 2), (8, batch // 2, batch)):
        yield {
            "time": 1.7e9 + at, "step": 40 * at, "what": said("batch_size"), "from": before, "to": after,
            "reason": reason,
        }  # fmt: skip


def _plan(batch, said):
    names = ("name", "tag", "bytes", "offset", "first", "last")
    rows = (
        ("x0", "input", 8192, 0, 0, 6),
        ("t4 linear", "activation", 16384, 8192, 1, 6),
        ("scratch of linear", "scratch", 32768, 24576, 1, 1),
        ("t8 matmul", "gradient", 32768, 24576, 4, 6),
    )
    return {
        "started": "2026-01-02T03:04:05Z", "ended": "2026-01-02T03:04:17Z", "rows": batch, "alignment": 64,
        "processor": said("A processor of 3 GHz"), "peak_bytes": 57344, "lower_bound_bytes": 57344,
        "input_bytes": 8192, "workspace_bytes": 49152, "arena_bytes": 57344,
        "notes": [said("within 64 kB: the batch in 2 parts")],
        "tensors": [dict(zip(names, (said(name), said(tag), *numbers))) for name, tag, *numbers in rows],
        "parameter_bytes": 38440, "resident_at_begin": 49_660_000, "resident_at_end": 109_200_000,
        "resident_peak": None,
    }  # fmt: skip


def _instructions(speed, said):
    rows = (
        ("linear", 4.2, 528384, 57856),
        ("matmul", 4.1, 524288, 57344),
        ("adam", 3.5, 98304, 229388),
        ("dropout", 3.4, 4096, 32776),
        ("where(a > 0.0, b, 0.0)", 1.1, 8192, 49152),
        ("assign[a + 1]", 0.8, 1, 16),
        ("softmax_cross_entropy_both", 0.9, 2880, 3072),
        ("copy", 0.5, 0, 4096),
    )
    return {
        "executor": said("native"), "step_seconds": 2.1e-5 / speed,
        "instructions": [
            {"place": i, "name": said(name), "shapes": [[32, 64], [64, 128], []], "kernel": said("native"),
             "line": said("step.py:25"), "phase": "forward", "seconds": took * 1e-6 / speed, "flops": flops,
             "bytes": moved}
            for i, (name, took, flops, moved) in enumerate(rows)
        ],
        "roofline": {"threads": 2, "dtype": "float32", "flop_per_s": 3.8e11 * speed, "bytes_per_s": 2.3e10,
                     "unknown": []},
    }  # fmt: skip
