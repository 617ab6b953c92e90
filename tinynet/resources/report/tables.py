"""Names and values of configurations and results as rows: nested objects flattened, numbers with their units."""

from __future__ import annotations

from collections.abc import Sequence

from tinynet.meters.units import show_bytes, show_joules, show_seconds

from .folder import is_number
from .markup import Child, Element, element

NONE = "\N{EN DASH}"  # in a cell for which there is no value
_LARGEST = 2**60


def flattened(value: dict, prefix: str = "") -> dict[str, str]:
    """name -> its value in words. Names of nested objects are joined; an energy is told with its provenance or not."""
    found: dict[str, str] = {}
    for name, each in value.items():
        full = f"{prefix} {name.replace('_', ' ')}".strip()
        if isinstance(each, dict):
            found |= flattened(each, full)
        elif "joule" in name and name.startswith("limit"):
            found[full] = show_joules(each) if is_number(each) else in_words(name, each)
        elif "joule" in name:
            provenance = value.get("provenance")
            told = provenance if isinstance(provenance, str) else "not told, so no number is shown"
            shown = f"{show_joules(each)}, " if isinstance(provenance, str) and is_number(each) else ""
            found[full] = f"{shown}provenance: {told}"
        else:
            found[full] = in_words(name, each)
    return found


def in_words(name: str, value) -> str:
    """A value; a number with the unit that its name tells."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(in_words("", each) for each in value) or "none"
    if not is_number(value):
        return str(value)
    if name.endswith("accuracy"):
        return f"{value:.2%}".replace("%", "\u00a0%")
    if name.endswith("seconds") and value >= 0:
        return show_seconds(value)
    if (name.endswith("bytes") or name == "peak_memory") and 0 <= value < _LARGEST:
        return show_bytes(int(value))
    if name == "samples_per_second":
        return f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[Child | list[Child]]], *, numbers: Sequence[int] = (),
    spare: Sequence[int] = (), tight: Sequence[int] = (),
) -> Element:  # fmt: skip
    """A table whose first column names the rows.

    Args:
        numbers: columns that are set flush right; those that are ``tight`` as well hold numbers alone.
        spare: columns that narrow pages do without.
        tight: columns whose texts are short, and not broken.
    """

    def look(column: int) -> str | None:
        looks = {"number": numbers, "spare": spare, "tight": tight}
        names = [name for name, columns in looks.items() if column in columns]
        return " ".join(names) or None

    top = [element("th", text, scope="col", class_=look(i)) for i, text in enumerate(head)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=look(0)),
            [element("td", cell, class_=look(i)) for i, cell in enumerate(row[1:], 1)],
        )
        for row in rows
    ]
    whole = element("thead", element("tr", top)), element("tbody", body)
    return element("table", element("caption", caption), *whole)
