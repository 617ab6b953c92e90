"""Training: the loops, what may look on, what is remembered, and what is written to disk.

loop          fit
evaluating    evaluate, predict
step          the training step, and losses and optimizers by name
planning      plan: what a step will take, before there is memory for it
run           Run: a training under way, and how it is taken up again
callbacks     Progress, EarlyStopping, Checkpoint, CSVLog
history       History: one row of numbers per epoch
checkpoint    save and load: a model as one file, without pickle
safetensors   the file format underneath
"""

from .callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, Progress
from .checkpoint import load, load_extra, save
from .evaluating import evaluate, predict
from .history import History
from .loop import fit
from .planning import StepPlan, plan
from .run import Run

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Progress",
    "Run",
    "StepPlan",
    "evaluate",
    "fit",
    "load",
    "load_extra",
    "plan",
    "predict",
    "save",
]
