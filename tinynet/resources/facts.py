"""How facts are gathered: a probe answers or says why it cannot, and one guard stands around all of them.

A probe is a function that returns a value of plain Python (numbers, text, lists, dictionaries) with units in its keys.
The facts are a dictionary of sections of such values. What could not be found out is None there, and the reason stands
in the section "unknown". Which probes there are is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Facts = dict[str, dict[str, Any]]


class Unknown(Exception):
    """What a probe raises when the answer cannot be had here; its text is the reason, for the reader."""


def gather(probes: dict[str, dict[str, Callable[[], Any]]]) -> Facts:
    """Runs all probes in order. None of them can stop the others.

    Args:
        probes: section -> name -> probe.

    Returns:
        section -> name -> value, or None with the reason in ``["unknown"]["section.name"]``.
    """
    facts: Facts = {section: {} for section in probes} | {"unknown": {}}
    for section, named in probes.items():
        for name, probe in named.items():
            try:
                facts[section][name] = probe()
            except Unknown as reason:
                facts[section][name] = None
                facts["unknown"][f"{section}.{name}"] = str(reason)
            except Exception as error:  # a broken driver, library or file is one more thing to report
                facts[section][name] = None
                facts["unknown"][f"{section}.{name}"] = f"{type(error).__name__}: {error}"
    return facts


def known(facts: Facts, *path: str) -> Any:
    """The value at the end of a path such as ``("processor", "quota", "processors")``; None if any part is unknown."""
    value: Any = facts
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
