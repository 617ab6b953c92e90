"""Data on its way into the engine: data sets, their readers, and the loader that cuts them into batches.

Everything here is a plain NumPy array in host memory, or rows of a file that become one; nothing knows of tensors,
devices or models.

    dataset      Dataset: inputs and targets side by side, and its seeded split
    sampling     the randomness of this room: permutations and stratified splits
    loader       Loader: epochs of batches, resumable in the middle
    order        the order in which an epoch visits the rows, and their gathering
    making       a batch: gathered, transformed, its faults named
    prefetch     a thread that works ahead
    disk         stored: data sets on disk, whose rows are read when they are asked for
    storing      store: writes them, also from chunks
    idx          read_idx: the binary format of MNIST
    images       digits (embedded) and mnist (from a folder)
    table        read_table: a CSV file, parsed into typed columns
    encoders     one column of a table <-> numbers
    records      reading what an encoder saved, field by field
    preprocess   Preprocessor: all columns, fitted on training rows, saved with the model
    tabular      csv: the four steps from a file to two data sets
"""

from typing import TYPE_CHECKING

from .dataset import Dataset
from .idx import read_idx
from .images import digits, mnist
from .loader import Loader

if TYPE_CHECKING:
    from .disk import StoredArray, stored
    from .preprocess import Preprocessor, infer_task
    from .storing import store
    from .table import Column, Table, read_table
    from .tabular import csv

__all__ = [
    "Column",
    "Dataset",
    "Loader",
    "Preprocessor",
    "StoredArray",
    "Table",
    "csv",
    "digits",
    "infer_task",
    "mnist",
    "read_idx",
    "read_table",
    "store",
    "stored",
]

# Tables make most of this room's import time and are needed by few, as files are: each name loads its module at first
# use.
_LAZY = {
    "Column": "table",
    "Preprocessor": "preprocess",
    "StoredArray": "disk",
    "Table": "table",
    "csv": "tabular",
    "infer_task": "preprocess",
    "read_table": "table",
    "store": "storing",
    "stored": "disk",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
