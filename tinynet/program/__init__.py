"""A training step as a program: captured once, planned to the byte, run from one arena.

capture    capture, Captured: when to trace, when to run
calls      a call's arguments taken apart, and its results put together
trace      Trace: one call of a step, written down as a graph
guards     Guards: the Python state that a program froze, and whether it is still so
graph      Graph, Register, Instruction; the verifier
passes/    what removes, merges and moves instructions
compile    which passes run, and in which order
budget     what is computed again, and how a batch is cut, to keep to a budget of memory
plan       MemoryPlan: where each tensor of a program lies
execute    Program: instructions bound to memory
listing    a program as text
variant    a program in the place of a step, and the proof that it may be there
threads    how many processors compiled programs run on
"""

from .capture import Captured, capture
from .execute import Program
from .graph import Graph
from .plan import MemoryPlan
from .threads import get_num_threads, set_num_threads

__all__ = ["Captured", "Graph", "MemoryPlan", "Program", "capture", "get_num_threads", "set_num_threads"]
