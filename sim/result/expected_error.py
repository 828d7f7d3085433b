"""What error to expect of a run: that of the nearest published deployment that was simulated."""

from dataclasses import replace
from typing import Any, Final

from sim.catalog.validated import Served, Serving, Validated, validated
from sim.deployment.plan import Deployment
from sim.step.stand_ins import experts_carried

METRICS: Final = ("tpot", "ttft", "throughput")
SERVING: Final[dict[str, Serving]] = {"serve": "aggregated", "prefill": "prefill", "decode": "decode"}
"""Role of a pool -> what was published of such pools."""


def expected_error(deployment: Deployment) -> dict[str, Any] | None:
    """Median absolute errors of the nearest validated pools, as shares; None where a pool's family has none.

    A family shares model, GPU, engine, format of the weights, kind of pool, drafts or none, and experts that are
    equally popular or not. Of its layouts those that were held out are asked, the others only if there are none; the
    nearest by `Served.doublings` counts, with the most cases among equals. Two pools are asked for as published
    services of two pools, by the layout of the workers that decode, and as published steps of each, of which the worse
    error and the greater distance count, and `held_out` holds if it does for both; the nearer answer is given, that of
    services among equals. A scenario with a profile of its own belongs to no family, nor does one whose routed experts
    are carried beyond what was measured, unless a service of this very layout was published and it names no kernels.

    An anchor of this layout that knows its own error has that; of another one it says nothing here.
    """
    anchor = deployment.anchor
    if anchor and anchor.error and anchor.of_this_layout:
        return {
            **{metric: anchor.error[metric] for metric in METRICS},
            "p90": dict.fromkeys(METRICS),
            "anchor": anchor.name,
            "family": f"each predicted from the others: {anchor.name}",
            "cases": anchor.error["left_out"],
            "held_out": True,
            "doublings": 0.0,
        }
    own = f"{deployment.gpu.name}/{deployment.engine.name}"
    if deployment.profile_named and deployment.profile != own:
        return None
    asked = [[served(deployment, role) for role in deployment.pools]]
    if "decode" in deployment.pools:
        asked.insert(0, [service(deployment)])
    answers = [answer for pools in asked if (answer := _answer(pools))]
    if not answers:
        return None
    answer = min(answers, key=lambda answer: answer["doublings"])
    named = any(plan.layout.moe_backend for plan in deployment.pools.values())
    return None if (answer["doublings"] or named) and experts_carried(deployment) else answer


def _answer(pools: list[Served]) -> dict[str, Any] | None:
    """What the nearest validated pool of each of these says, taken together; None where one has no family."""
    known = [one for pool in pools if (one := nearest(pool))]
    if len(known) < len(pools):
        return None
    return {
        **{metric: _worst(known, metric) for metric in METRICS},
        "p90": {metric: _worst(known, f"{metric}_p90") for metric in METRICS},
        "family": "; ".join(str(one.pool) for one in known),
        "cases": sum(one.cases for one in known),
        "held_out": all(one.held_out for one in known),
        "doublings": max(one.pool.doublings(pool) for one, pool in zip(known, pools, strict=True)),
    }


def service(deployment: Deployment) -> Served:
    """The service as a whole: its one pool, or of two the one that decodes."""
    if "serve" in deployment.pools:
        return served(deployment, "serve")
    return replace(served(deployment, "decode"), serving="disaggregated")


def served(deployment: Deployment, role: str) -> Served:
    """The pool of that role, in the catalog's names."""
    plan = deployment.pool(role)
    return Served(
        model=deployment.model.name,
        gpu=deployment.gpu.name,
        engine=deployment.engine.name,
        weights=deployment.precision.weights,
        serving=SERVING[plan.role],
        drafts=plan.role != "prefill" and deployment.drafts.tokens > 0,
        gpus=plan.gpus,
        tp=plan.tp,
        ep=plan.ep,
        even=plan.experts.even,
    )


def nearest(pool: Served) -> Validated | None:
    """The validated pool that says most about this one; None without one of its family."""
    family = [one for one in validated() if one.pool.family == pool.family]
    judges = [one for one in family if one.held_out] or family
    return min(judges, key=lambda one: (one.pool.doublings(pool), -one.cases), default=None)


def _worst(known: list[Validated], metric: str) -> float | None:
    return max((error for one in known if (error := getattr(one, metric)) is not None), default=None)
