"""``Source``: a Python function that is written for one program, and what its lines name.

A call of a small program takes a few microseconds, of which a loop over a list of places, or a function for each part
of a call, would be the larger half: what is done one after the other in one function costs a third of that. So guards,
arguments, programs and results each write their lines here; what the lines say is their business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Source:
    """A function being written.

    Attributes:
        names: what its lines name. An object that is replaced there is replaced in the function.
    """

    def __init__(self):
        self.names: dict[str, object] = {}
        self._lines: list[str] = []
        self._depth = 1

    def name(self, thing) -> str:
        """A name for an object, which is kept alive."""
        name = f"o{id(thing)}"
        self.names[name] = thing
        return name

    def add(self, line: str) -> None:
        """Adds a line. After one that ends in a colon the next ones are within it."""
        self._lines.append("    " * self._depth + line)
        self._depth += line.endswith(":")

    def end(self) -> None:
        """Ends what the last open line with a colon began."""
        if self._lines[-1].endswith(":"):
            self.add("pass")
        self._depth -= 1

    def function(self, *parameters: str) -> Callable:
        """The function."""
        exec("\n".join([f"def written({', '.join(parameters)}):", *(self._lines or ["    pass"])]), self.names)
        return self.names.pop("written")


def all_of(conditions: Sequence[str]) -> str:
    """An expression of several, in their order."""
    return " and ".join(conditions) or "True"
