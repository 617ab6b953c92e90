"""Memory planned before it is taken, and memory given out as it is asked for.

The planner, from lifetimes to offsets, in integers only:

    lifetimes    Lifetime, the live bytes over time, the lower bound
    planner      plan_offsets: lifetimes -> offsets
    greedy       placement by one rule in one order
    conflicts    which tensors live at the same time, and which of them matter
    search       branch and bound with restarts, limited by a number of steps
    check        check_plan: an independent proof that no two live ranges share a byte
    svg          memory_map: a plan as a picture

It touches no array and can be used without the rest: ``plan_offsets([(0, 2, 4096), (1, 3, 1024)])``.

The allocator, for tensors of which nobody knows beforehand how long they live:

    freelist     which bytes are free: best fit, and bump; integers only
    arena        Arena: tensors in one block of bytes
    statistics   ArenaStats: who holds how much
    layout       static: arrays at planned offsets of one block
    units        sizes in bytes as text, both ways
"""

from .arena import Arena
from .check import check_plan
from .layout import static
from .lifetimes import Lifetime, live_bytes, lower_bound
from .planner import Offsets, plan_offsets
from .statistics import ArenaStats
from .svg import memory_map
from .units import as_bytes, show_bytes

__all__ = [
    "Arena",
    "ArenaStats",
    "Lifetime",
    "Offsets",
    "as_bytes",
    "check_plan",
    "live_bytes",
    "lower_bound",
    "memory_map",
    "plan_offsets",
    "show_bytes",
    "static",
]
