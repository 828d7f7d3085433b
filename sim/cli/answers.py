"""What `run` and `compare` tell of a result beside its figures: which objectives it kept."""

from collections.abc import Iterator, Mapping
from typing import Any

OBJECTIVES = {
    "ttft_p99_s": ("TTFT", "ttft_s"),
    "tpot_p99_s": ("TPOT", "tpot_s"),
    "e2e_p99_s": ("end to end", "e2e_s"),
}
"""Objective -> what a person reads, and the latency that it bounds at p99."""


def kept(run: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """(what is bounded at p99, the bound in seconds, the p99 or None where the run is unstable) per objective."""
    for key, (label, latency) in OBJECTIVES.items():
        bound = run["scenario"].get("objectives", {}).get(key)
        if bound is not None:
            yield label, bound, run["latency"][latency]["p99"]
