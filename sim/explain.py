"""One step, operation by operation: what `tokenworks explain` prints."""

from dataclasses import dataclass, replace
from typing import Any, Final

from sim import catalog
from sim.cost.latency import AnalyticCost, CostModel, PricedOperation, price_all, shares_with
from sim.deployment.plan import Deployment, resolve
from sim.deployment.pools import PoolPlan
from sim.model.layout import Phase
from sim.model.operations import Operation
from sim.scenario.errors import DeploymentError, KeyPath, Problem
from sim.scenario.schema import Scenario
from sim.step.operations import StepOperations, typical_prompts
from sim.step.overlap import STAGES, Line, Stage, StepOverlap, projections, stage_of, timeline
from sim.step.pricing import calibrated, check_backends, cost_model, moe_backends, step_operations
from sim.units import GB_BYTES

DEFAULT_CONTEXT: Final = 4096
CONTEXT: Final[KeyPath] = ("context",)
"""What a problem of the asked context is told of; no key of a scenario."""
ROUNDING: Final = 1e-9
"""Share of a sum below which a difference is none."""


def explain(
    scenario: Scenario, phase: Phase | None = None, batch: int | None = None, context: int | None = None
) -> "Explanation":
    """Price one step of the pool that does `phase` (default: decode), every rank alike.

    `batch`: sequences per attention-DP rank in decode, new tokens per rank in prefill (one prompt); default the
    pool's limit. `context`: KV tokens that each sequence already has (default 4096 in decode, 0 in prefill).
    Raises DeploymentError where the layout does not divide, or `context` is beyond the model's positions; a cache
    that does not fit is priced all the same.
    """
    phase = phase or "decode"
    deployment = resolve(scenario, phase)
    plan, positions = deployment.pool(phase), deployment.model.max_positions
    if context is not None and context > positions:
        raise DeploymentError(
            [Problem(CONTEXT, f"{context:,} tokens; {deployment.model.name} has {positions:,} positions")]
        )
    check_backends(deployment)
    step = step_operations(deployment, phase)
    if phase == "decode":
        batch, context = batch or plan.max_sequences, DEFAULT_CONTEXT if context is None else context
        step = step.at(batch)
        tokens = batch * (1 + step.draft_tokens)
    else:
        batch, context = batch or plan.chunk_tokens, context or 0
        tokens = batch
    parts = step.overlap.parts(batch)
    operations = _operations(step, phase, batch, context)
    cost = cost_model(deployment, phase)
    priced, device_s, step_s = _priced(operations, cost, step.overlap, parts, tokens)
    others = {}
    for backend in _other_backends(deployment, step, operations):
        # As if the scenario had named it: some kernels come with operations of their own.
        named = step_operations(resolve(_with_backend(scenario, plan.role, backend), phase), phase)
        same = _operations(named.at(batch) if phase == "decode" else named, phase, batch, context)
        others[backend] = _priced(same, cost, step.overlap, parts, tokens)[2]
    roofline = AnalyticCost(deployment.gpu, catalog.efficiency())
    accepted = deployment.drafts.accept_length(step.draft_tokens) if phase == "decode" else None
    return Explanation(
        phase, batch, context, tokens, accepted, priced, device_s, step_s, others, deployment, roofline
    )


def _operations(step: StepOperations, phase: Phase, batch: int, context: int) -> list[Operation]:
    """What the step runs, or one half of it where the batch runs in two."""
    parts = step.overlap.parts(batch)
    if phase == "decode":
        return step.decode_attention(batch / parts, context) + step.decode_rest(batch / parts)
    prompts = typical_prompts(batch / parts, context + (batch + 1) / 2)
    return step.prefill_attention(*prompts) + step.prefill_rest(batch / parts)


def _other_backends(
    deployment: Deployment, step: StepOperations, operations: list[Operation]
) -> tuple[str, ...]:
    """Measured kernels of the routed experts, where the deployment leaves open which of them runs."""
    routed = next((o for o in operations if o.kernel == "moe"), None)
    return () if routed is None or step.layout.moe_backend else moe_backends(deployment, routed)


def _with_backend(scenario: Scenario, role: str, backend: str) -> Scenario:
    pool = scenario.deployment.pools()[role].model_copy(update={"moe_backend": backend})
    deployment = scenario.deployment.model_copy(update={role: pool})
    return scenario.model_copy(update={"deployment": deployment})


def _priced(
    operations: list[Operation], cost: CostModel, overlap: StepOverlap, parts: int, tokens: float
) -> tuple[list[PricedOperation], float, float]:
    """The operations with their prices, the step's seconds on the GPU, and those with its launches."""
    repeated = [o if o.stream == "once" else _times(o, parts) for o in operations]
    priced = [_stretched(p, overlap, parts) for p in price_all(repeated, cost)]
    line = _line(operations, priced, cost, overlap, parts, tokens)
    attention_s = sum(p.total_s for p in priced if p.operation.group == "attention")
    device_s = float(replace(line, launch=0.0).seconds(attention_s))
    return priced, device_s, max(device_s, line.launch)


def _line(
    operations: list[Operation],
    priced: list[PricedOperation],
    cost: CostModel,
    overlap: StepOverlap,
    parts: int,
    tokens: float,
) -> Line:
    """How the step's time follows from its attention: the one that the simulation runs (`sim.step.surface`)."""
    seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
    for one in priced:
        if one.operation.group != "attention":
            seconds[stage_of(one.operation)] += one.total_s
    before = [part for block in operations for part in projections(block)]
    times = parts * overlap.stretch("layers", parts)
    seconds["projections"] = times * sum(p.total_s for p in price_all(before, cost))
    sends, launched = overlap.sends_s(operations, parts), overlap.launched(operations, parts, tokens)
    return timeline(seconds, overlap, parts > 1, sends, launched).line(seconds["experts"])


def _stretched(priced: PricedOperation, overlap: StepOverlap, parts: int) -> PricedOperation:
    """The price beside an exchange that takes SMs for itself."""
    factor, latency = overlap.stretch(priced.operation.stream, parts), priced.latency
    if factor == 1:
        return priced
    return replace(priced, latency=latency.times(factor, "beside the exchange"))


def _times(operation: Operation, times: int) -> Operation:
    """The operation run `times` times in every layer."""
    parts = tuple(_times(part, times) for part in operation.parts)
    return replace(operation, layers=operation.layers * times, parts=parts)


def _told(difference_s: float, of_s: float) -> float:
    """A difference of sums, none where it is their rounding."""
    return difference_s if difference_s > ROUNDING * of_s else 0.0


@dataclass(frozen=True)
class Explanation:
    """A priced step of the slowest rank, and the memory of its GPU."""

    phase: str
    batch: int
    context: int
    tokens: int
    """New tokens of this rank in the step."""
    accept_length: float | None
    """Tokens per sequence that a decode step yields on average, drafts included; None in prefill, or if unknown."""
    operations: list[PricedOperation]
    """With two half batches each operation runs on half the batch, twice per layer."""
    device_s: float
    """Seconds of the step on the GPU: its operations one after another, less what overlaps."""
    step_s: float
    """Seconds of the step: longer than on the GPU where the host, without CUDA graphs, launches more slowly."""
    step_s_by_moe_backend: dict[str, float]
    """The same with each measured kernel of the routed experts; empty where scenario or exchange decide which one."""
    deployment: Deployment
    """Of the one pool that does the phase."""
    roofline: CostModel
    """Shares out a block that was measured whole among its parts."""

    @property
    def plan(self) -> PoolPlan:
        """The pool that does the phase."""
        return self.deployment.pool(self.phase)

    @property
    def hidden_s(self) -> float:
        """Seconds of operations that run beside others."""
        total_s = sum(priced.total_s for priced in self.operations)
        return _told(total_s - self.device_s, total_s)

    def json(self) -> dict[str, Any]:
        """The names of INTERFACES: `explain --json`."""
        total_s = sum(priced.total_s for priced in self.operations)
        memory = self.plan.memory
        return {
            "phase": self.phase,
            "batch": self.batch,
            "context": self.context,
            "step_s": self.step_s,
            "hidden_s": self.hidden_s,
            "launch_wait_s": _told(self.step_s - self.device_s, total_s),
            "step_s_by_moe_backend": self.step_s_by_moe_backend,
            "tokens": self.tokens,
            "accept_length": self.accept_length,
            "operations": [self._row(priced, total_s) for priced in self.operations if priced.total_s],
            # Says something only where measurements of one's own stand beside shipped ones.
            **({"priced_with": shares_with(self.operations)} if calibrated(self.deployment) else {}),
            "memory": {
                "weights_gb": memory.weights_bytes / GB_BYTES,
                "kv_cache_gb": memory.kv_cache_bytes / GB_BYTES,
                "kv_tokens": memory.kv_tokens,
                "cache_bytes_per_token": memory.cache_bytes_per_token,
                "kv_tokens_needed": self.kv_tokens_needed,
            },
        }

    @property
    def kv_tokens_needed(self) -> int:
        """KV tokens of the step's sequences on one rank, to hold against the rank's `kv_tokens`."""
        memory = self.plan.memory
        if self.phase == "decode":
            return memory.tokens_of(self.batch, self.context)
        return memory.tokens_of(1, self.context + self.tokens)

    def _row(self, priced: PricedOperation, total_s: float) -> dict[str, Any]:
        latency = priced.latency
        return {
            **_work(priced.operation, priced.total_s, total_s),
            "group": priced.operation.group,
            "bound": latency.bound,
            "priced_by": latency.priced_by,
            "priced_by_seconds": {
                source: seconds * priced.operation.layers for source, seconds in latency.by_source()
            },
            "source": latency.source,
            "parts": self._parts(priced, total_s),
        }

    def _parts(self, priced: PricedOperation, total_s: float) -> list[dict[str, Any]]:
        """What a block measured whole consists of; its seconds are shared out by the roofline of the parts."""
        parts = price_all(priced.operation.parts, self.roofline)
        whole_s = sum(part.total_s for part in parts)
        return [_work(p.operation, priced.total_s * p.total_s / whole_s, total_s) for p in parts]


def _work(operation: Operation, seconds: float, total_s: float) -> dict[str, Any]:
    """An operation's totals over its layers."""
    return {
        "name": operation.name,
        "layers": operation.layers,
        "seconds": seconds,
        "share": seconds / total_s,
        "flop": operation.flop * operation.layers,
        "bytes": operation.bytes * operation.layers,
        "cache_bytes": (operation.cache_bytes or sum(p.cache_bytes for p in operation.parts))
        * operation.layers,
    }
