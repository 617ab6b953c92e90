"""Files of the control groups (cgroup versions 1 and 2) of this process, which limit and count what it uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # where /proc and /sys are


def read(path: Path) -> str | None:
    """The text of a file without blanks around it; None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def known(root: Path = ROOT) -> bool:
    """Whether the system says which control groups this process is in."""
    return read(root / "proc/self/cgroup") is not None


def folders(root: Path, controller: str, name: str) -> Iterator[Path]:
    """The groups of this process that have a file of this name: its own, and those around it, which bind it too.

    Version 1 has one tree of groups per controller, version 2 a single tree for all. Inside a container the groups
    further out, and their path, may not be visible; what is there counts.

    Args:
        root: where /proc and /sys are.
        controller: "memory", "cpu".
        name: of the file, such as "memory.max".
    """
    top = root / "sys/fs/cgroup"
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mounted in (top / controllers, top / controller) if controllers else (top, top / "unified"):
            group, found = mounted / path.lstrip("/"), []
            while group.is_relative_to(mounted):
                found += [group] if (group / name).is_file() else []
                group = group.parent
            if found:
                yield from found
                break


def files(root: Path, controller: str, name: str) -> Iterator[str]:
    """The texts of those files, from the innermost group outwards."""
    for folder in folders(root, controller, name):
        if (text := read(folder / name)) is not None:
            yield text
