"""A run's folder as the report reads it: each file checked once, here, so that what draws can rely on its shape.

A file that is not there is None: a run need not have all of them. A file that is damaged, or holds something else, is
one ``DataError`` that names the file and the line or the place in it. Nothing is believed of a folder but that: texts
are any texts, and numbers that are not finite count as unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tinynet.errors import DataError

_LARGEST = 2**60  # bytes, instructions and the like; nothing real comes near
_HUGE = 10**300  # beyond which arithmetic with floats ends


class RunFolder(NamedTuple):
    """What a run's folder holds. Every field but ``name`` is None where its file is not there.

    Attributes:
        name: of the folder.
        config: settings, chosen, environment: three dictionaries, of which any may be empty.
        history: epochs, a list of dictionaries of numbers, texts and None; stopped, a text or None.
        metrics: whatever the run came to, as in the file.
        samples: of the monitor: dictionaries with time, and numbers, texts or None.
        decisions: of the controller: dictionaries with time, step, what, from, to, reason.
        plan, instructions: as ``tinynet.resources.recording`` describes them.
    """

    name: str
    config: dict | None
    history: dict | None
    metrics: dict | None
    samples: list[dict] | None
    decisions: list[dict] | None
    plan: dict | None
    instructions: dict | None


def read(folder) -> RunFolder:
    """Reads the folder of a run.

    Raises:
        DataError: no such folder, one in which there is nothing of a run, or a damaged file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}", expected="the folder of a run, as 'tinynet train' writes it", got=got)
    found = {name: _read(folder / file, kind) for name, (file, kind) in _FILES.items()}
    if all(value is None for value in found.values()):
        names = ", ".join(file for file, _ in _FILES.values())
        got = f"a folder without any of {names}"
        raise DataError(f"{folder}", expected="a run, as 'tinynet train' writes it", got=got)
    return RunFolder(folder.resolve().name, **found)


def _read(path: Path, check: Callable[[Path, str], object]):
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}", expected="text in UTF-8", got=str(error), mend=_MEND) from error
    return check(path, text)


_MEND = "take the file away: the report says then what is missing, and how to get it"


def _parsed(where: str, text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of thousands of digits
        raise DataError(where, expected="JSON", got=str(error), mend=_MEND) from error


# ---- kinds of values ----


def is_number(value) -> bool:
    """Whether a value of a file is a number; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(where: str, value) -> float | int | None:
    """A number, or None for null and for what is not finite."""
    if value is None:
        return None
    if not is_number(value) or (type(value) is int and abs(value) > _HUGE):
        raise _wrong(where, "a number or null", value)
    return value if math.isfinite(value) else None


def _count(where: str, value) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise _wrong(where, "an integer from 0", value)
    return value


def _text(where: str, value) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "a text", value)
    return value


def _optional_text(where: str, value) -> str | None:
    return None if value is None else _text(where, value)


def _scalar(where: str, value):
    """A text, a truth value, a number or None."""
    return value if isinstance(value, (str, bool)) else _number(where, value)


def _anything(where: str, value):
    """Any value whose numbers are finite."""
    if isinstance(value, dict):
        return {name: _anything(f"{where}, {name}", each) for name, each in value.items()}
    if isinstance(value, list):
        return [_anything(where, each) for each in value]
    return _scalar(where, value)


def _object(where: str, value) -> dict:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    return {name: _anything(f"{where}, {name}", each) for name, each in value.items()}


def _list_of(check: Callable) -> Callable:
    def checked(where: str, value) -> list:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return [check(f"{where} {i}", each) for i, each in enumerate(value)]

    return checked


def _record(required: dict[str, Callable], optional: dict[str, Callable] | None = None, rest=None) -> Callable:
    """An object with these fields; optional ones are None where they are not there. ``rest`` checks all others."""

    def checked(where: str, value) -> dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        missing = [name for name in required if name not in value]
        if missing:
            raise _wrong(where, f"a field {missing[0]!r}", ", ".join(value) or "none")
        fields = required | (optional or {})
        found: dict = dict.fromkeys(fields)
        found |= {name: check(f"{where}, {name}", value[name]) for name, check in fields.items() if name in value}
        if rest is not None:
            found |= {name: rest(f"{where}, {name}", each) for name, each in value.items() if name not in fields}
        return found

    return checked


def _wrong(where: str, expected: str, value) -> DataError:
    got = value if isinstance(value, str) else repr(value)
    return DataError(where, expected=expected, got=got if len(got) <= 60 else f"{got[:59]}…", mend=_MEND)


def _whole(check: Callable) -> Callable:
    return lambda path, text: check(f"{path}", _parsed(f"{path}", text))


def _lines(check: Callable) -> Callable:
    """A value per line. A last line without its end is being written at this moment, and is left out if not whole."""

    def checked(path: Path, text: str) -> list:
        lines, found = text.split("\n"), []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                value = _parsed(where, line)
            except DataError:
                if number == len(lines):
                    break
                raise
            found.append(check(where, value))
        return found

    return checked


# ---- the files ----

_NUMBERS = ("step", "epoch", "loss", "lr", "batch_size", "samples_per_second", "resident_bytes", "arena_bytes", "cpu",
            "joules", "gradient_norm")  # fmt: skip
_SAMPLE = _record(
    {"time": _number},
    dict.fromkeys(_NUMBERS, _number) | dict.fromkeys(("provenance", "energy_note"), _optional_text),
    rest=_anything,
)
_DECISION = _record(
    {"time": _number, "what": _text}, {"step": _number, "from": _scalar, "to": _scalar, "reason": _optional_text}
)
_TENSOR = _record({"name": _text, "tag": _text, "bytes": _count, "offset": _count, "first": _count, "last": _count})
_PLAN = _record(
    {"tensors": _list_of(_TENSOR), "peak_bytes": _count, "lower_bound_bytes": _count},
    {
        "alignment": _count, "input_bytes": _number, "workspace_bytes": _number, "arena_bytes": _number,
        "parameter_bytes": _number,
        "resident_at_begin": _number, "resident_at_end": _number, "resident_peak": _number, "rows": _number,
        "started": _optional_text, "ended": _optional_text, "processor": _optional_text, "notes": _list_of(_text),
    },
)  # fmt: skip
_INSTRUCTION = _record(
    {"place": _count, "name": _text, "seconds": _number, "flops": _number, "bytes": _number},
    {"kernel": _optional_text, "line": _optional_text, "phase": _optional_text, "shapes": _list_of(_list_of(_count))},
)
_LIMITS = _record(
    {"flop_per_s": _number, "bytes_per_s": _number},
    {"threads": _number, "dtype": _optional_text, "unknown": _list_of(_text)},
)
_CONFIG = _record({}, dict.fromkeys(("settings", "chosen", "environment"), _object), rest=_anything)
_EPOCH = _record({"epoch": _count}, rest=_scalar)
_HISTORY = _record({"epochs": _list_of(_EPOCH)}, {"stopped": _optional_text})
_INSTRUCTIONS = _record(
    {"instructions": _list_of(_INSTRUCTION), "step_seconds": _number, "roofline": _LIMITS}, {"executor": _optional_text}
)
_FILES = {
    "config": ("config.json", _whole(_CONFIG)),
    "history": ("history.json", _whole(_HISTORY)),
    "metrics": ("metrics.json", _whole(_object)),
    "samples": ("monitor.jsonl", _lines(_SAMPLE)),
    "decisions": ("decisions.jsonl", _lines(_DECISION)),
    "plan": ("plan.json", _whole(_PLAN)),
    "instructions": ("instructions.json", _whole(_INSTRUCTIONS)),
}
