"""What a result has to say about its prices: which kernels were measured with another engine, or with other experts,
and what one's own measurements priced."""

from collections.abc import Iterator

from sim.cost.latency import PRICED_WITH, PricedOperation, shares_with
from sim.cost.measured import ProfileCost
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.kernels import FAMILIES
from sim.model.operations import Operation
from sim.step.operations import typical_prompts
from sim.step.pricing import priced_by, priced_by_profile, step_operations, whole_steps
from sim.step.whole import WholeStepOperations, whole_step_notes

TOKENS, CONTEXT = 64.0, 4096.0
"""A step to look at: which tables are chosen hardly depends on it."""


def pricing_notes(deployment: Deployment) -> Iterator[str]:
    """Sentences for the user: another engine's tables in the place of the engine's own, and experts carried on."""
    cost = priced_by(deployment)
    if not isinstance(cost, ProfileCost):
        return
    engine = deployment.engine.name
    if steps := whole_steps(deployment):
        yield from whole_step_notes(steps, deployment, str(deployment.profile))
    if not deployment.profile_named and cost.profile.engine != engine:
        yield f"{engine} is priced by the kernels of {cost.profile.engine}"
    if cost.profile.calibrated:
        yield _own_share(deployment, cost)
    stand_ins: dict[str, set[str]] = {}
    for operation in _operations(deployment, cost):
        if profile := cost.stand_in(operation):
            stand_ins.setdefault(FAMILIES[operation.kernel].words, set()).add(profile)
    if stand_ins:
        listed = ", ".join(f"{family} ({', '.join(sorted(by))})" for family, by in sorted(stand_ins.items()))
        yield f"priced by kernels of another engine than {cost.profile.engine}: {listed}"
    if (share := taken_out(deployment)) > 0:
        told = f"{share:.0%} of what was measured (sim/cost/profiles/launches.csv)"
        if cost.as_timed:
            yield (
                "attention blocks are priced as timed, with launches showing or norms unfused, because the scenario "
                f"names their profile: {told}. Leave `profile` out for the price without them"
            )
        else:
            yield (
                "attention blocks that were timed with launches showing or norms unfused are priced without them: "
                f"{told}"
            )
    plans = deployment.pools.values()
    open_to_it = engine == "vllm" and not any(plan.layout.moe_backend for plan in plans)
    if open_to_it and any(_shares_experts(plan) for plan in plans):
        yield (
            "which kernels vLLM runs for experts inside a TP group is not known here; with Triton, EP was "
            "published as slower (docs/experts.md). Name them with moe_backend"
        )
    for experts in experts_carried(deployment):
        yield f"routed experts: {experts}; what expert parallelism costs is carried on from there, and not validated"


def _own_share(deployment: Deployment, cost: ProfileCost) -> str:
    """What prices such steps, and the families that the profile lacks."""
    priced = [PricedOperation(o, cost.price(o)) for o in _operations(deployment, cost) if o.kernel != "host"]
    shares = shares_with(priced)
    told = ", ".join(f"{whose} {shares[whose]:.0%}" for whose in PRICED_WITH)
    lacking = {FAMILIES[p.operation.kernel].words for p in priced if not p.latency.own}
    rest = f"; not measured there: {', '.join(sorted(lacking))}" if lacking else ""
    return f"{cost.profile.path} prices a step of {TOKENS:g} tokens with: {told}{rest}"


def taken_out(deployment: Deployment) -> float:
    """Share of the measured attention blocks in such a step that is launches and unfused norms."""
    cost = priced_by_profile(deployment, as_timed=False)
    if not isinstance(cost, ProfileCost):
        return 0.0
    taken = left = 0.0
    for operation in _operations(deployment, cost):
        if operation.parts and (out := cost.taken_out_s(operation)):
            taken, left = taken + out, left + cost.price(operation).seconds
    return taken / (taken + left) if taken > 0 else 0.0


def _shares_experts(plan: PoolPlan) -> bool:
    """Whether experts are spread over the GPUs of one attention rank, without an all-to-all."""
    return plan.ep > 1 and plan.dp == 1


def experts_carried(deployment: Deployment) -> list[str]:
    """Where the routed experts are priced beyond the experts per GPU that were measured; empty where they are not."""
    cost = priced_by(deployment)
    if not isinstance(cost, ProfileCost):
        return []
    routed = [operation for operation in _operations(deployment, cost) if operation.kernel == "moe"]
    return sorted({said for operation in routed if (said := cost.experts_beyond(operation))})


def _operations(deployment: Deployment, cost: ProfileCost) -> Iterator[Operation]:
    """The operations of a step of each pool and phase that kernels price; a block that nobody measured by its parts."""
    for plan in deployment.pools.values():
        for phase in plan.layouts:
            step = step_operations(deployment, phase)
            if isinstance(step, WholeStepOperations):
                continue
            if phase == "decode":
                listed = step.decode_attention(TOKENS, CONTEXT) + step.decode_rest(TOKENS)
            else:
                prompts = typical_prompts(TOKENS, CONTEXT)
                listed = step.prefill_attention(*prompts) + step.prefill_rest(TOKENS)
            for operation in listed:
                yield from (operation,) if cost.knows(operation) else operation.parts
