"""Steps that a profile of whole steps prices: which pools it was measured on, and what stands for their operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sim.cost.whole_steps import PHASES, WholeSteps
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.model.attention import Forms
from sim.model.layout import Phase
from sim.model.operations import REST_OF_STEP, WHOLE_STEP, Group, Operation
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.spelling import engine_name
from sim.step.operations import StepOperations


@dataclass(frozen=True)
class WholeStepOperations(StepOperations):
    """A step as two blocks, which were measured whole: attention, by what its context adds, and all else. Their parts
    are the operations that they stand for."""

    phase: Phase = "decode"

    def decode_attention(self, sequences: float, context: float) -> list[Operation]:
        """See `StepOperations`."""
        parts = super().decode_attention(sequences, context)
        tokens = sequences * (1 + self.draft_tokens)
        return [self._attention(parts, tokens, context, 0.0)]

    def decode_rest(self, sequences: float) -> list[Operation]:
        """See `StepOperations`."""
        return [self._rest(super().decode_rest(sequences), sequences * (1 + self.draft_tokens))]

    def prefill_attention(
        self, prompts: float, new: float, cached: float, forms: Forms | None = None
    ) -> list[Operation]:
        """See `StepOperations`."""
        parts = super().prefill_attention(prompts, new, cached, forms)
        return [self._attention(parts, prompts * new, cached + (new + 1) / 2, prompts * (cached + new))]

    def prefill_rest(self, tokens: float) -> list[Operation]:
        """See `StepOperations`."""
        return [self._rest(super().prefill_rest(tokens), tokens)]

    def _attention(self, parts: Sequence[Operation], tokens: float, context: float, held: float) -> Operation:
        shape = {"tokens": tokens, "context": context, "held": held}
        return replace(self._whole("attention of the step", "attention", parts), shape=shape)

    def _rest(self, parts: Sequence[Operation], tokens: float) -> Operation:
        whole = self._whole(REST_OF_STEP, "other", parts)
        return replace(whole, shape={"tokens": tokens}, stream="once")

    def _whole(self, name: str, group: Group, parts: Sequence[Operation]) -> Operation:
        return Operation(
            name, group, WHOLE_STEP, {}, "bf16",
            sum(part.flop * part.layers for part in parts), sum(part.bytes * part.layers for part in parts),
            parts=tuple(parts), options={"phase": self.phase},
            cache_bytes=sum(part.cache_bytes * part.layers for part in parts),
        )  # fmt: skip


def prices(steps: WholeSteps, plan: PoolPlan, phase: Phase) -> bool:
    """Whether they are steps of such a pool."""
    return phase in steps.phases and (plan.gpus, plan.tp, plan.ep) == steps.layout


def check_whole_steps(steps: WholeSteps, deployment: Deployment, name: str) -> None:
    """Raises DeploymentError where they are steps of another model, engine or format, with other drafts, or of no
    pool's layout. One pool of two may have another one: the steps may be the other's."""
    drafts, pools, formats = deployment.drafts, deployment.pools, deployment.precision
    compared = {
        "model": (steps.model, deployment.model.name),
        "engine": (engine_name(steps.engine), deployment.engine.name),
        "weights": (steps.weights, formats.weights),
        "KV cache": (steps.kv_cache, formats.kv_cache),
        "draft tokens": (steps.draft_tokens, drafts.tokens),
    }
    differing = (
        f"{key} {measured}, not {asked}"
        for key, (measured, asked) in compared.items()
        if measured is not None and measured != asked
    )
    said = next(differing, "")
    if drafts.levels:
        said = said or "one number of draft tokens, not one that depends on the batch"
    layouts = {(plan.gpus, plan.tp, plan.ep) for plan in pools.values()}
    if steps.layout not in layouts and ("serve" in pools or len(pools) > 1):
        asked_for = " or ".join(f"{gpus} GPUs with tp {tp} and ep {ep}" for gpus, tp, ep in sorted(layouts))
        said = said or f"{steps.gpus} GPUs with tp {steps.tp} and ep {steps.ep}, not {asked_for}"
    if steps.layers != deployment.model.layers:
        said = said or f"{steps.layers} layers, not {deployment.model.layers} (give two depths with --layers)"
    if said:
        raise DeploymentError(
            [Problem(("profile",), f"{name} holds whole steps of a service with {said}; leave it out")]
        )


def whole_step_notes(steps: WholeSteps, deployment: Deployment, name: str) -> Iterator[str]:
    """Says which steps are priced whole, from what, and how far off the fit is; and what of the service that was
    measured is another or not known."""
    if steps.gpu != deployment.gpu.name:
        yield f"{name} holds whole steps of {steps.gpu}: nothing scales them to {deployment.gpu.name}"
    formats = {"weights": steps.weights, "KV cache": steps.kv_cache}
    if unknown := [key for key, value in formats.items() if value is None]:
        yield f"{name} does not tell the format of its {' and '.join(unknown)}: taken for the scenario's"
    for plan in deployment.pools.values():
        for phase in plan.layouts:
            if not prices(steps, plan, phase):
                yield f"{name} holds no {phase} steps of the {plan.role} pool's layout: priced by kernels"
    for phase in PHASES:
        if fit := steps.phases.get(phase):
            error = fit.error
            off = (
                f"each load predicted from the others: off by {error['median']:.1%} (median), {error['p90']:.1%} (p90)"
                if error
                else "too few loads to tell the error"
            )
            yield (
                f"{phase} priced by whole steps of {name} ({fit.steps:,} steps of {steps.read}; {off}), measured at "
                f"{fit.tokens[0]:,.0f} to {fit.tokens[1]:,.0f} tokens per rank and contexts of {fit.context[0]:,.0f} "
                f"to {fit.context[1]:,.0f}"
            )
