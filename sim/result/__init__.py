"""What a run gave: per-request table, percentiles, stability, invariants; to be saved and loaded."""

from sim.result.invariants import check_invariants
from sim.result.result import Result, SavedResult, load
from sim.result.stability import Queue, backlog_grows

__all__ = ["Queue", "Result", "SavedResult", "backlog_grows", "check_invariants", "load"]
