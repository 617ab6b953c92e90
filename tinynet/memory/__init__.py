"""Memory planned before it is taken: from lifetimes to offsets, in integers only.

    lifetimes    Lifetime, the live bytes over time, the lower bound
    planner      plan_offsets: lifetimes -> offsets
    greedy       placement by one rule in one order
    conflicts    which tensors live at the same time, and which of them matter
    search       branch and bound with restarts, limited by a number of steps
    check        check_plan: an independent proof that no two live ranges share a byte
    svg          memory_map: a plan as a picture

It touches no array and can be used without the rest: ``plan_offsets([(0, 2, 4096), (1, 3, 1024)])``.
"""

from .check import check_plan
from .lifetimes import Lifetime, live_bytes, lower_bound
from .planner import Offsets, plan_offsets
from .svg import memory_map

__all__ = ["Lifetime", "Offsets", "check_plan", "live_bytes", "lower_bound", "memory_map", "plan_offsets"]
