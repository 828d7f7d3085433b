"""What a result has to say about its prices: which kernels were measured with another engine, or with other experts."""

from collections.abc import Iterator, Mapping

from sim.cost.measured import ProfileCost
from sim.deployment.plan import PoolPlan
from sim.kernels import FAMILIES
from sim.model.operations import Operation
from sim.scenario.schema import Scenario
from sim.step.operations import typical_prompts
from sim.step.pricing import PHASES, priced_by, step_operations

TOKENS, CONTEXT = 64.0, 4096.0
"""A step to look at: which tables are chosen hardly depends on it."""


def pricing_notes(scenario: Scenario, pools: Mapping[str, PoolPlan]) -> Iterator[str]:
    """Sentences for the user: another engine's tables in the place of the engine's own, and experts carried on."""
    cost = priced_by(scenario)
    if not isinstance(cost, ProfileCost):
        return
    if scenario.profile is None and cost.profile.engine != scenario.engine:
        yield f"{scenario.engine} is priced by the kernels of {cost.profile.engine}"
    stand_ins: dict[str, set[str]] = {}
    for operation in _operations(scenario, pools, cost):
        if profile := cost.stand_in(operation):
            stand_ins.setdefault(FAMILIES[operation.kernel].words, set()).add(profile)
    if stand_ins:
        listed = ", ".join(f"{family} ({', '.join(sorted(by))})" for family, by in sorted(stand_ins.items()))
        yield f"priced by kernels of another engine than {cost.profile.engine}: {listed}"
    if scenario.engine == "vllm" and any(_shares_experts(plan) for plan in pools.values()):
        named = [pool.moe_backend for pool in scenario.deployment.pools().values()]
        if not any(named):
            yield (
                "which kernels vLLM runs for experts inside a TP group is not known here; with Triton, EP was "
                "published as slower (docs/experts.md). Name them with moe_backend"
            )
    for experts in experts_carried(scenario, pools):
        yield f"routed experts: {experts}; what expert parallelism costs is carried on from there, and not validated"


def _shares_experts(plan: PoolPlan) -> bool:
    """Whether experts are spread over the GPUs of one attention rank, without an all-to-all."""
    return plan.ep > 1 and plan.dp == 1


def experts_carried(scenario: Scenario, pools: Mapping[str, PoolPlan]) -> list[str]:
    """Where the routed experts are priced beyond the experts per GPU that were measured; empty where they are not."""
    cost = priced_by(scenario)
    if not isinstance(cost, ProfileCost):
        return []
    routed = [operation for operation in _operations(scenario, pools, cost) if operation.kernel == "moe"]
    return sorted({said for operation in routed if (said := cost.experts_beyond(operation))})


def _operations(scenario: Scenario, pools: Mapping[str, PoolPlan], cost: ProfileCost) -> Iterator[Operation]:
    """The operations of a step of every pool and phase, a block that nobody measured by its parts."""
    for role, plan in pools.items():
        for phase in PHASES[role]:
            step = step_operations(scenario, plan, phase)
            if phase == "decode":
                listed = step.decode_attention(TOKENS, CONTEXT) + step.decode_rest(TOKENS)
            else:
                prompts = typical_prompts(TOKENS, CONTEXT)
                listed = step.prefill_attention(*prompts) + step.prefill_rest(TOKENS)
            for operation in listed:
                yield from (operation,) if cost.knows(operation) else operation.parts
