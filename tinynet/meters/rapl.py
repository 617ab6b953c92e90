"""The energy counters of processors (RAPL), as Linux shows them under /sys/class/powercap.

A zone is a folder with a counter of microjoules that starts again at 0 after ``max_energy_range_uj``. A package is a
processor with its caches; core and uncore lie within it and are not added to it again; memory (dram) is a zone below
it whose energy is not in the package's. ``intel-rapl-mmio`` shows the same packages a second time, psys the whole
board. Sources: Intel's Software Developer's Manual, volume 3, "RAPL interfaces"; power/powercap in Linux's manual.
"""

from __future__ import annotations

from pathlib import Path

from .groups import read

ROOT = Path("/sys/class/powercap")
MOST_WATTS = 2000.0  # no package draws more; how soon a counter can have gone round follows from it
UPDATED = 1e-3  # seconds between two updates of a counter, by Intel's manual
OPEN = "until the next start: sudo chmod a+r /sys/class/powercap/*/energy_uj"


class Unreadable(Exception):
    """A counter that cannot be read; its text is the reason and, where there is one, the way out."""


class Zone:
    """One counter. ``kind`` is "package", "dram" or "other"; other ones are parts of packages, or more than them."""

    def __init__(self, folder: Path):
        self.folder, self.id = folder, folder.name
        self.name = read(folder / "name") or folder.name
        self.kind = "package" if self.name.startswith("package") else "dram" if self.name == "dram" else "other"
        span = read(folder / "max_energy_range_uj")
        self.span = int(span) if span is not None and span.isdecimal() and int(span) else None

    def microjoules(self) -> int:
        """The counter as it stands.

        Raises:
            Unreadable: the file is closed to this user, is gone, or holds no number.
        """
        try:
            text = (self.folder / "energy_uj").read_text().strip()
        except PermissionError:
            raise Unreadable(f"permission denied; {OPEN}") from None
        except OSError as error:
            raise Unreadable(f"the counter is gone ({error.strerror or error})") from None
        if not text.isdecimal():
            raise Unreadable(f"the counter reads {text[:20]!r}")
        return int(text)

    def readable(self) -> bool:
        """Whether this user may read the counter."""
        try:
            return self.microjoules() >= 0
        except Unreadable:
            return False


def zones(root: Path = ROOT) -> list[Zone]:
    """All counters there are, in the order of their names."""
    return [Zone(file.parent) for file in sorted(root.glob("*/energy_uj"))]


def counted(found: list[Zone]) -> list[tuple[str, Zone]]:
    """The zones whose sum is the energy of processors and memory, each part of it once, with their names.

    Those are the packages, and the dram zones beside them.
    """
    packages: dict[str, Zone] = {}
    for zone in found:
        if zone.kind == "package" and (zone.name not in packages or "mmio" in packages[zone.name].id):
            packages[zone.name] = zone
    parts = []
    for name, package in packages.items():
        parts.append((name, package))
        below = (zone for zone in found if zone.kind == "dram" and zone.id.startswith(f"{package.id}:"))
        parts += [(f"{name} dram", zone) for zone in below]
    return parts


class Account:
    """What one zone has counted since it was opened.

    A counter that reads less than before has gone round once. At up to 2 kW it cannot do so twice unseen if somebody
    looks every ``every`` seconds; after more than twice that time the account is closed with that reason, as it is
    when the counter cannot be read. It never opens again: what was missed is not known.

    Attributes:
        why: the reason why there is no number; None as long as there is one.
    """

    def __init__(self, zone: Zone, now: float):
        self.zone, self.why = zone, None
        self.every = None if zone.span is None else zone.span / 1e6 / MOST_WATTS / 2
        self._sum, self._at = 0, now
        try:
            self._last = zone.microjoules()
        except Unreadable as reason:
            self.why = str(reason)

    def joules(self, now: float) -> float | None:
        """Joules until now; None if there is a ``why``."""
        if self.why is None:
            try:
                self._add(self.zone.microjoules(), now)
            except Unreadable as reason:
                self.why = str(reason)
        return None if self.why is not None else self._sum / 1e6

    def _add(self, count: int, now: float) -> None:
        passed, span, grown = now - self._at, self.zone.span, count - self._last
        if self.every is not None and passed > 2 * self.every:
            raise Unreadable(f"not looked at for {passed:.0f} s, in which the counter may have gone round twice")
        if grown < 0:
            if span is None:
                raise Unreadable("the counter went back, and its range is not known")
            grown += span
        if grown > 1e6 * MOST_WATTS * (passed + 1):
            raise Unreadable(f"the counter jumped by {grown / 1e6:.0f} J within {passed:.1f} s")
        self._sum, self._last, self._at = self._sum + grown, count, now
