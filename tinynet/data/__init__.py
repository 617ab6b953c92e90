"""Data on its way into the engine: data sets, their readers, and the loader that cuts them into batches.

Everything here lives in host memory as plain NumPy arrays; nothing knows of tensors, devices or models.

    dataset      Dataset: inputs and targets side by side, and its seeded split
    sampling     the randomness of this room: permutations and stratified splits
    loader       Loader: epochs of batches, resumable in the middle
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
    from .preprocess import Preprocessor, infer_task
    from .table import Column, Table, read_table
    from .tabular import csv

__all__ = [
    "Column",
    "Dataset",
    "Loader",
    "Preprocessor",
    "Table",
    "csv",
    "digits",
    "infer_task",
    "mnist",
    "read_idx",
    "read_table",
]

# Tables make most of this room's import time and are needed by few: each name loads its module at first use.
_LAZY = {
    "Column": "table",
    "Preprocessor": "preprocess",
    "Table": "table",
    "csv": "tabular",
    "infer_task": "preprocess",
    "read_table": "table",
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
