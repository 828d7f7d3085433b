"""Published throughputs of one step at a fixed load, prefill or decode alone, and what a mechanism gains there.

The data, with sources, is `points.yaml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from sim.deployment.plan import PoolPlan, plan_pool
from sim.scenario.schema import Scenario
from sim.step import PromptLoad
from sim.step.pricing import pool_step_cost
from sim.validation.errors import Case

FILE: Final = Path(__file__).with_name("points.yaml")
ALL: Final = "wide-ep"
"""The name of all points and gains together."""


@cache
def points() -> Mapping[str, Any]:
    """`points.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def point_ids() -> list[str]:
    """Ids of all points, then of all gains, in their order."""
    return [entry["id"] for kind in ("points", "gains") for entry in points()[kind]]


def validate_points(ids: Sequence[str]) -> Iterator[Case]:
    """Simulate the points and gains with these ids, one after another."""
    for point in points()["points"]:
        if point["id"] in ids:
            yield _case(point)
    for gain in points()["gains"]:
        if gain["id"] in ids:
            yield _gain(gain)


def _case(point: Mapping[str, Any]) -> Case:
    scenario, plan = setup(point)
    gpus = points()["gpus_per_node"]
    published = point.get("tokens_per_s_per_node") or point["tokens_per_s_per_gpu"] * gpus
    simulated = _tokens_per_s(point) * gpus / plan.gpus
    where, what = _described(point, scenario, plan)
    metric = f"{point['phase']}_tput_per_node"
    return Case(point["id"], metric, float(published), simulated, None, where, what, scenario.model)


def _gain(gain: Mapping[str, Any]) -> Case:
    """Throughput with over without, less 1: both published and simulated, so that the error is that of the gain."""
    [point] = [p for p in points()["points"] if p["id"] == gain["point"]]
    load = "tokens" if point["phase"] == "prefill" else "sequences"
    here = {**point, load: gain.get("load", point[load])}
    without = {**here, "set": {**point.get("set", {}), **gain["without"]}}
    simulated = _tokens_per_s(here) / _tokens_per_s(without) - 1
    scenario, plan = setup(here)
    where, what = _described(here, scenario, plan)
    said = f"{gain['name']}: {what}"
    return Case(gain["id"], "gain", gain["gain"], simulated, None, where, said, scenario.model)


def setup(point: Mapping[str, Any]) -> tuple[Scenario, PoolPlan]:
    """The scenario of a point, and the pool that it is about."""
    scenario = Scenario.model_validate({**points()["bases"][point["base"]], **point.get("set", {})})
    return scenario, plan_pool(scenario, point["phase"])


def _described(point: Mapping[str, Any], scenario: Scenario, plan: PoolPlan) -> tuple[str, str]:
    """Layout and load in words."""
    where = f"{scenario.gpu} {scenario.engine} {scenario.precision.weights} EP{plan.ep}"
    load, length = (point.get(a) or point[b] for a, b in (("tokens", "sequences"), ("prompt", "context")))
    return where, f"{point['phase']} of {load} at {length}"


def _tokens_per_s(point: Mapping[str, Any]) -> float:
    """Of all ranks, which have the same load; prompts attend to half of themselves on average."""
    scenario, plan = setup(point)
    cost = pool_step_cost(scenario, plan)
    if point["phase"] == "decode":
        load, context = np.full(plan.dp, float(point["sequences"])), np.full(plan.dp, float(point["context"]))
        tokens = point["sequences"] * _tokens_per_step(scenario)
        return float(plan.dp * tokens / cost.decode_s(load, context))
    load, context = np.full(plan.dp, float(point["tokens"])), np.full(plan.dp, (point["prompt"] + 1) / 2)
    return float(plan.dp * point["tokens"] / cost.prefill_s(PromptLoad.alike(load, context)))


def _tokens_per_step(scenario: Scenario) -> float:
    """Expected tokens of a sequence per decode step: 1 + a1 + a1 a2 + ... of its drafts' acceptance."""
    accepted = (scenario.speculation.acceptance or ())[: scenario.speculation.draft_tokens]
    return 1.0 + float(np.cumprod(accepted).sum())
