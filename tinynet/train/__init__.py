"""Training: the loops, what may look on, what is remembered, and what is written to disk.

loop          fit
evaluating    evaluate, predict
step          the training step, eagerly and as a program, and losses and optimizers by name
watching      the step of fit(watch=...): NaN and infinity, found before the update and traced to where they are from
norms         the joint norm of a step's gradients, for who looks on
planning      plan: what a step will take, before there is memory for it
run           Run: a training under way, and how it is taken up again
callbacks     Progress, EarlyStopping, Checkpoint, CSVLog
plateau       ReduceLROnPlateau
budgets       Budget: an end by time or energy
history       History: one row of numbers per epoch
checkpoint    save and load: a model as one file, without pickle
safetensors   the file format underneath
"""

from .budgets import Budget, Used
from .callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, Progress
from .checkpoint import load, load_extra, save
from .evaluating import evaluate, predict
from .history import History
from .loop import fit
from .planning import StepPlan, plan
from .plateau import ReduceLROnPlateau
from .run import Run

__all__ = [
    "Budget",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Progress",
    "ReduceLROnPlateau",
    "Run",
    "StepPlan",
    "Used",
    "evaluate",
    "fit",
    "load",
    "load_extra",
    "plan",
    "predict",
    "save",
]
