"""Energy by arithmetic, for machines on which nothing counts it: an estimate with its uncertainty, never a measurement.

A model has a ``basis`` in words, says with ``covers_gpus`` whether it speaks of GPUs too and with ``by_work`` whether
it needs counted flops and bytes, and gives ``joules(flops, nbytes, processor_seconds)``, with their uncertainty.
"""

from __future__ import annotations

from typing import Protocol

from tinynet.errors import ArgumentError


class Model(Protocol):
    """What ``Meter`` takes as a model."""

    basis: str
    covers_gpus: bool
    by_work: bool

    def joules(self, flops: float, nbytes: float, processor_seconds: float) -> tuple[float, float]: ...


class ProcessorModel:
    """Processor seconds times watts of a busy core: the middle of a range, and half of its width as uncertainty.

    Args:
        watts: least and most that a busy core takes, its share of caches and memory controller included.

    The default of 3.5 to 12 W is the thermal design power over the number of cores of processors of 2021 to 2023, from
    AMD's EPYC 9654 (360 W, 96 cores: 3.75 W) and Intel's Xeon Platinum 8480+ (350 W, 56 cores: 6.25 W) to AMD's Ryzen 9
    7950X (170 W, 16 cores: 10.6 W), by their data sheets. Memory and the rest of the machine are not in it, nor GPUs. A
    processor that is shared with others, or is a thread of a core, takes less.

    Raises:
        ArgumentError: a range that is none.
    """

    covers_gpus = by_work = False

    def __init__(self, watts: tuple[float, float] = (3.5, 12.0)):
        low, high = watts
        if not 0 <= low <= high:
            raise ArgumentError("ProcessorModel", expected="watts=(least, most), 0 <= least <= most", got=repr(watts))
        self.watts = (low, high)
        self.basis = f"processor seconds at {low:g} to {high:g} W"

    def joules(self, flops: float, nbytes: float, processor_seconds: float) -> tuple[float, float]:
        low, high = self.watts
        return processor_seconds * (low + high) / 2, processor_seconds * (high - low) / 2


class WorkModel:
    """Counted flops and bytes times picojoules: the middle of each range, and half of the widths as uncertainty.

    Args:
        flop: least and most picojoules of a float32 operation, with its share of the processor.
        byte: least and most picojoules of a byte that an instruction reads or writes.
        covers_gpus: whether the numbers are those of the device on which the work is done, when that is a GPU.

    The numbers to multiply with are those of ``Program.cost``. The default for flops is 50 to 200 pJ: thermal design
    power over peak at the base clock (EPYC 9654: 360 W for 96 cores x 2.4 GHz x 32 flops, 49 pJ), and four times that,
    since nothing runs at the peak throughout. For bytes it is 1.25 to 160 pJ: M. Horowitz, "Computing's energy
    problem", ISSCC 2014, gives 10 pJ for 8 bytes from a cache of 8 KB and 1.3 to 2.6 nJ for 8 bytes from DRAM, of
    which the lesser is taken for the memory of today; where a byte lies is not counted. Of small networks most energy
    goes into neither, so that this is too low for them.
    """

    by_work = True

    def __init__(
        self, flop: tuple[float, float] = (50.0, 200.0), byte: tuple[float, float] = (1.25, 160.0),
        covers_gpus: bool = False,
    ):  # fmt: skip
        for low, high in (flop, byte):
            if not 0 <= low <= high:
                raise ArgumentError(
                    "WorkModel", expected="(least, most) with 0 <= least <= most", got=f"flop={flop}, byte={byte}"
                )
        self.flop, self.byte, self.covers_gpus = flop, byte, covers_gpus
        self.basis = f"flops at {flop[0]:g} to {flop[1]:g} pJ and bytes at {byte[0]:g} to {byte[1]:g} pJ"

    def joules(self, flops: float, nbytes: float, processor_seconds: float) -> tuple[float, float]:
        low, high = (1e-12 * (flops * self.flop[i] + nbytes * self.byte[i]) for i in (0, 1))
        return (low + high) / 2, (high - low) / 2
