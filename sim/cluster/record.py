"""What a run leaves behind: one row per request, one total per pool. Read by `sim.result` and `sim.price`."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.cluster.life_record import LifeRecord
from sim.scenario.schema import Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class RequestTable:
    """Columns over requests, in order of arrival. Times in seconds of the simulated clock; NaN where it never came.

    A rejected request (it can never fit) has NaN in every time after `arrival_s` and `rejected` True.
    """

    arrival_s: Floats
    input_tokens: Ints
    cached_tokens: Ints
    """Prompt tokens served from the prefix cache at first admission."""
    cached_host_tokens: Ints
    """Of these, from host memory."""
    cached_disk_tokens: Ints
    """Of these, from disk; the others from HBM."""
    output_tokens: Ints
    prefill_start_s: Floats
    blocked_s: Floats
    """Seconds before that in which the next prompt of its rank found no seat or no KV blocks."""
    prefill_end_s: Floats
    placed_s: Floats
    """When a decode rank had a seat and KV blocks for it; as `prefill_end_s` where its prompt was computed there."""
    received_s: Floats
    """When its KV was whole on that rank; likewise."""
    first_token_s: Floats
    """First output token at the client: after prefill, and the KV transfer where there is one."""
    finish_s: Floats
    preemptions: Ints
    recomputed_tokens: Ints
    """Tokens computed again because of preemption; not part of `input_tokens`."""
    generated_tokens: Ints
    """Output tokens actually generated; equals `output_tokens` for completed requests."""
    rejected: NDArray[np.bool_]


@dataclass
class PoolRecord:
    """One pool over the whole run. GPU seconds = worker seconds x GPUs per worker."""

    gpus: int
    busy_gpu_s: dict[str, float] = field(default_factory=dict)
    """GPU seconds of work, by activity: `prefill` (computing new prompt tokens), `decode`, `cached` (re-reading
    cached prefixes)."""
    busy_in_window_s: float = 0.0
    """Worker-mean busy seconds inside the measurement window, for `utilization`."""
    new_tokens: int = 0
    """Prompt tokens computed, recomputation included."""
    steps: int = 0
    decoded_tokens: int = 0
    """Tokens that decode steps generated, of sequences that have left the batch."""
    sequence_steps: int = 0
    """Decode steps that these sequences took, added up over sequences."""
    kv_cache_peak: float = 0.0
    """Highest share of the KV budget in use on any rank."""
    kv_blocks_leaked: int = 0
    """KV blocks still held after everything completed; an invariant says 0."""


@dataclass
class RunRecord:
    """Everything that a run produced, with what was applied."""

    scenario: Scenario
    seed: int
    requests: RequestTable
    pools: dict[str, PoolRecord]
    window_s: tuple[float, float]
    """Measurement window: from the end of the warm-up to the last arrival (closed loop: the last completion at full
    concurrency), or the whole run where that is not `steady`: from the first arrival after the warm-up to the last
    completion. Empty where the run ended before its warm-up."""
    end_s: float
    """The last completion."""
    events: int
    wall_s: float
    priced_gpu_s: dict[str, float]
    """Simulated GPU seconds by provenance: measured, fitted, scaled, extrapolated, analytic."""
    steady: bool = True
    """Whether the window shows a service that goes on; see `sim.cluster.window.is_steady`."""
    invariants: list[str] = field(default_factory=list)
    """Sentences about invariants that did not hold; empty after a sound run."""
    life: LifeRecord | None = None
    """None: the workers of the pools were always there."""
