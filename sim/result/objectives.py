"""Which of its objectives a service keeps."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

OBJECTIVES: Final = {
    "ttft_p99_s": ("TTFT", "ttft_s"),
    "tpot_p99_s": ("TPOT", "tpot_s"),
    "e2e_p99_s": ("end to end", "e2e_s"),
}
"""Objective -> what a person reads, and the latency that it bounds at p99."""


class Judged(NamedTuple):
    """One objective of a run."""

    key: str
    label: str
    bound_s: float
    found_s: float | None
    """At p99; None where nothing was measured, where the backlog grows, or where no request has such a latency."""
    kept: bool
    why: str
    """Why there is no p99; empty where there is one."""

    def json(self) -> dict[str, Any]:
        """What the JSON of a run says of it."""
        return {"bound_s": self.bound_s, "found_s": self.found_s, "kept": self.kept, "why": self.why or None}


def judged(run: Mapping[str, Any]) -> Iterator[Judged]:
    """Each objective of the scenario, by the JSON of its run.

    What no request has is kept, as in the run's goodput: answers of one token have no TPOT.
    """
    latencies, completed = run.get("latency") or {}, (run.get("requests") or {}).get("completed")
    for key, (label, latency) in OBJECTIVES.items():
        bound_s = (run["scenario"].get("objectives") or {}).get(key)
        if bound_s is None:
            continue
        p99_s = (latencies.get(latency) or {}).get("p99")
        if p99_s is not None:
            yield Judged(key, label, bound_s, p99_s, p99_s <= bound_s, "")
        elif run.get("stable") is False:
            yield Judged(key, label, bound_s, None, False, "the backlog grows")
        elif completed:
            yield Judged(key, label, bound_s, None, True, f"no request has a {label}")
        else:
            yield Judged(key, label, bound_s, None, False, "nothing was measured")
