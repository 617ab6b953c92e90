"""Training runs side by side, in processes of their own: to judge a model, and to make a better one of several.

    processes   run_all: tasks in processes that divide the processors among them
    runs        a training run in such a process: what is built, from which seed, on which rows
    validation  cross_validate: how well a model does on data it has not seen, fold by fold
    ensembles   ensemble: several models of one kind, and their mean

What comes out depends on seeds, not on how many processes there are: every run has the same number of threads.
"""

from .ensembles import Ensemble, ensemble
from .validation import CrossValidation, Fold, cross_validate

__all__ = ["CrossValidation", "Ensemble", "Fold", "cross_validate", "ensemble"]
