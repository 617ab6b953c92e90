"""The size of batches: how large they may be, which is fastest, and how it changes during a run.

    sizing      batch_size: the answer for a model and a memory
    fitting     what fits, by arithmetic
    throughput  samples per second over the batch size, measured
    schedules   growing, shrinking, stages, mixed: sizes by the epoch, for ``fit(batch_size=...)``
    noise       NoiseScale: sizes by the gradient noise scale

A change of the batch size is a change of the step's program. One is captured and planned for each size when it first
comes, and found again later, with its arena; so what is here gives few sizes, and where they double, the arenas of all
take less than twice that of the largest.
"""

from .noise import GradientNoise, NoiseScale, gradient_noise
from .schedules import growing, mixed, shrinking, stages, steps
from .sizing import BatchSize, batch_size

__all__ = [
    "BatchSize",
    "GradientNoise",
    "NoiseScale",
    "batch_size",
    "gradient_noise",
    "growing",
    "mixed",
    "shrinking",
    "stages",
    "steps",
]
