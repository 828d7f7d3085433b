"""Routed experts: who is popular, where copies stand, how loaded the hottest rank is, how far tokens travel.

`expert_load` is the front door; `gate`, `popularity`, `placement` and `routing` are its parts, in that order.
"""

from sim.experts.load import LoadTable, default_policy, expert_load
from sim.experts.placement import Policy
from sim.experts.recorded import read_counts
from sim.experts.routing import Copies, Touched

__all__ = [
    "Copies",
    "LoadTable",
    "Policy",
    "Touched",
    "default_policy",
    "expert_load",
    "read_counts",
]
