"""A training step as a program: captured once, planned to the byte, run from one arena.

capture    capture, Captured: when to trace, when to run
trace      Trace: one call of a step, written down as a graph
guards     Guards: the Python state that a program froze, and whether it is still so
graph      Graph, Register, Instruction; the verifier
passes     what removes and merges instructions without changing a bit
plan       MemoryPlan: where each tensor of a program lies
execute    Program: instructions bound to memory
"""

from .capture import Captured, capture
from .execute import Program
from .graph import Graph
from .plan import MemoryPlan

__all__ = ["Captured", "Graph", "MemoryPlan", "Program", "capture"]
