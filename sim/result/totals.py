"""What adds up over requests: the same reckoning for all rows at once, and for a part after the other."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestTable
from sim.scenario.schema import Objectives

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

Figures = dict[str, float | None]

LATENCIES: Final = ("ttft_s", "tpot_s", "e2e_s")
PARTS_OF_TTFT: Final = ("queue_s", "prefill_s", "transfer_s", "admission_s", "first_step_s")


@dataclass
class Totals:
    """Of the requests that arrived after the warm-up. Prompts count once they are computed."""

    arrived: int = 0
    completed: int = 0
    rejected: int = 0
    retried: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cached_host_tokens: int = 0
    cached_disk_tokens: int = 0
    generated_tokens: int = 0
    decoded_tokens: int = 0
    """Of completed answers, after the first token, but for those that leave as a whole."""
    decoding_s: float = 0.0
    """Of the same answers, from the KV's arrival on the rank that decodes to the end."""
    first_arrival_s: float = np.inf
    last_finish_s: float = -np.inf
    breakdown_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS_OF_TTFT, 0.0))
    """Seconds of the completed requests' TTFT by where they go; see `parts_of_ttft`."""

    @classmethod
    def of(cls, table: RequestTable, counted: Flags, retries: Ints | None) -> "Totals":
        """`counted`: arrived after the warm-up."""
        completed = counted & ~np.isnan(table.finish_s)
        served = counted & ~np.isnan(table.prefill_end_s)
        seen = completed & (table.finish_s > table.first_token_s)
        return cls(
            arrived=int(counted.sum()),
            completed=int(completed.sum()),
            rejected=int((counted & table.rejected).sum()),
            retried=0 if retries is None else int(retries[counted].sum()),
            input_tokens=int(table.input_tokens[served].sum()),
            cached_tokens=int(table.cached_tokens[served].sum()),
            cached_host_tokens=int(table.cached_host_tokens[served].sum()),
            cached_disk_tokens=int(table.cached_disk_tokens[served].sum()),
            generated_tokens=int(table.generated_tokens[counted].sum()),
            decoded_tokens=int((table.output_tokens[seen] - 1).sum()),
            decoding_s=float((table.finish_s - table.received_s)[seen].sum()),
            first_arrival_s=float(table.arrival_s[counted].min(initial=np.inf)),
            last_finish_s=float(table.finish_s[completed].max(initial=-np.inf)),
            breakdown_s={name: float(s[completed].sum()) for name, s in parts_of_ttft(table).items()},
        )

    def __iadd__(self, other: "Totals") -> Self:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if name == "breakdown_s":
                self.breakdown_s = {part: s + value[part] for part, s in mine.items()}
            elif name == "first_arrival_s":
                self.first_arrival_s = min(mine, value)
            elif name == "last_finish_s":
                self.last_finish_s = max(mine, value)
            else:
                setattr(self, name, mine + value)
        return self


def parts_of_ttft(t: RequestTable) -> dict[str, Floats]:
    """Where the TTFT of each request goes, seconds; the parts add up to it.

    - `queue_s`: from arrival to the start of the prefill, but for `admission_s`: ingress, the step that runs, the
      prompts before;
    - `prefill_s`: from the prompt's first step to the end of its last, which yields the first token;
    - `admission_s`: waits for room. Before the prefill, the time in which the next prompt of the rank found no KV
      blocks, or, aggregated, no seat; disaggregated, also until a decode rank has both, before the prefill or after it,
      as the engine asks for them;
    - `transfer_s`: disaggregated, the router's relay, and from then until the KV is whole on that rank; aggregated 0;
    - `first_step_s`: disaggregated, from then until the first token leaves for the client: up to the step in which the
      sequence joins, and that step where the engine answers only then; aggregated 0, since the prefill has yielded it
      there.
    """
    return {
        "queue_s": t.prefill_start_s - t.arrival_s - t.blocked_s,
        "prefill_s": t.prefill_end_s - t.prefill_start_s,
        "transfer_s": t.received_s - t.placed_s,
        "admission_s": t.blocked_s + (t.placed_s - t.prefill_end_s),
        "first_step_s": t.first_token_s - t.received_s,
    }


def latencies(table: RequestTable) -> dict[str, Floats]:
    """Latencies of each request; NaN where they do not exist.

    - `ttft_s`: arrival to the first token at the client;
    - `e2e_s`: arrival to the last token;
    - `tpot_s`: (e2e - TTFT) / (output - 1); none for one token.
    """
    ttft_s = table.first_token_s - table.arrival_s
    e2e_s = table.finish_s - table.arrival_s
    gaps = np.where(table.output_tokens > 1, table.output_tokens - 1.0, np.nan)
    return {"ttft_s": ttft_s, "tpot_s": (e2e_s - ttft_s) / gaps, "e2e_s": e2e_s}


def meets(objectives: Objectives, columns: dict[str, NDArray[Any]]) -> Flags:
    """Which requests keep every objective that is given; what a request lacks (TPOT of one token) it keeps."""
    limits = {"ttft_s": objectives.ttft_p99_s, "tpot_s": objectives.tpot_p99_s, "e2e_s": objectives.e2e_p99_s}
    kept = np.ones(len(columns["ttft_s"]), dtype=bool)
    for name, limit_s in limits.items():
        if limit_s is not None:
            kept &= ~(columns[name] > limit_s)
    return kept


class OfHour(NamedTuple):
    """Requests that arrived in one hour; tokens and misses of those of them that were completed."""

    arrived: int
    completed: int
    input_tokens: int
    output_tokens: int
    missed: int
    ttft_s: Figures
    tpot_s: Figures
