"""The operations: the door, and the op table with one record per operation.

    record       Op: what there is to know of an operation
    door         where every operation passes, and the interpreter that evaluates
    spec         shapes and dtypes without arrays, and the rules that operations share
    splitting    how operations act on parts of their inputs
    fused        records that programs make of others
    elementwise reduction shaping indexing linalg network updates     the records
    brackets     what a user's indexing means
    samples      inputs on which the tests try a record

A record is the function: ``tn.ops.exp(x)``. To add an operation, make an ``Op`` (or ``elementwise``) and register its
reference kernel with ``tn.kernels.register``; nothing else has to be edited.
"""

from . import brackets, door, indexing, linalg, network, reduction, samples, shaping, spec, updates
from .door import Value
from .elementwise import elementwise
from .record import REQUIRED, Op, Sample, lookup, table
from .spec import Spec

_rooms = (brackets, indexing, linalg, network, reduction, shaping, updates)  # importing them fills the table
_records = table()
globals().update(_records)

__all__ = [
    "REQUIRED", "Op", "Sample", "Spec", "Value", "door", "elementwise", "lookup", "samples", "spec", "table", *_records,
]  # fmt: skip
