"""Counters that are not there: a powercap tree in a folder, NVIDIA's library, a clock that is turned by hand."""

from pathlib import Path

INTEL = {
    "intel-rapl": None,
    "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1", "intel-rapl:1:0": "core", "intel-rapl:1:1": "dram",
    "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0",
}  # fmt: skip


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Powercap:
    """A tree of zones; ``tree["intel-rapl:0"] = microjoules`` sets a counter."""

    def __init__(self, root: Path, names=INTEL, span: int | None = 262_143_328_850):
        self.root = root
        for zone, name in names.items():
            (root / zone).mkdir(parents=True)
            (root / zone / "enabled").write_text("1\n")
            if name is not None:
                (root / zone / "name").write_text(f"{name}\n")
                self[zone] = 0
                if span is not None:
                    (root / zone / "max_energy_range_uj").write_text(f"{span}\n")

    def __setitem__(self, zone: str, microjoules) -> None:
        (self.root / zone / "energy_uj").write_text(f"{microjoules}\n")

    def vanish(self, zone: str) -> None:
        (self.root / zone / "energy_uj").unlink()


def close(monkeypatch, *zones: str) -> None:
    """Closes the counters of zones, as they are to all but root; the test may be root, so that it is played."""
    read = Path.read_text

    def refused(self, *args, **kwargs):
        if self.name == "energy_uj" and self.parent.name in zones:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refused)


class NVML:
    """What Meter uses of pynvml, with counters in millijoules that a test sets; None breaks one."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules: int):
        self.millijoules = list(millijoules)

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index):
        if index >= len(self.millijoules):
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetName(self, device):
        return f"Fast {device}"

    def nvmlDeviceGetTotalEnergyConsumption(self, device):
        if self.millijoules[device] is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules[device]
