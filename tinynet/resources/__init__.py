"""What manages a running job: its batches, rates, memory, energy and answers; and the machine that it has to work with.

    facts       how facts are gathered: probes, one guard around them, and "unknown" as an answer
    machine     the machine as the system describes it: processor, caches, limits, memory, energy counters
    software    what is installed and chosen: BLAS, executor, threads, compiled kernels, GPU, extras
    measure     what can only be measured: the peak of a core, the bandwidth of memory, the speed of BLAS
    advice      what in these facts costs speed, and how to mend it
    batches     batch_size: how large a batch may be; schedules of it, NoiseScale
    controller  Controller: keeps a run within memory that becomes less, and gives back what it took
    exporting   TensorBoard and chrome_trace: a run for other people's viewers
    lr_range    lr_range: a learning rate, by a range test
    metering    energy of a block, EnergyLedger, compare_energy: joules, measured or modelled
    monitor     Monitor: throughput, memory, processors, energy of a run, in samples
    parallel    cross_validate, ensemble: runs side by side, in processes of their own
    recording   Record: the program of a run and its times, kept for the report
    report      write_report: a run, or two side by side, as one HTML page
    serving     serve: a model that answers requests of many threads within a deadline

Nothing here is needed to train. ``python -m tinynet doctor`` prints what the machine and its software are like.
"""

from . import batches
from .batches import NoiseScale, batch_size
from .controller import Controller
from .exporting import TensorBoard, chrome_trace
from .lr_range import LRRange, lr_range
from .metering import EnergyLedger, compare_energy, energy
from .monitor import Monitor
from .parallel import CrossValidation, Ensemble, cross_validate, ensemble
from .recording import Record
from .report import write_report
from .serving import serve

__all__ = [
    "Controller",
    "CrossValidation",
    "EnergyLedger",
    "Ensemble",
    "LRRange",
    "Monitor",
    "NoiseScale",
    "Record",
    "TensorBoard",
    "batch_size",
    "batches",
    "chrome_trace",
    "compare_energy",
    "cross_validate",
    "energy",
    "ensemble",
    "lr_range",
    "serve",
    "write_report",
]
