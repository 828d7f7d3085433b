"""Published throughputs of one step at a fixed load: prefill or decode alone, no queue."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from sim.model.deployment import plan_pool
from sim.scenario.schema import Scenario
from sim.step.assemble import pool_step_cost
from sim.validation.errors import Case

FILE: Final = Path(__file__).with_name("points.yaml")


@cache
def points() -> Mapping[str, Any]:
    """`points.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def point_ids() -> list[str]:
    """Ids of all points, in their order."""
    return [point["id"] for point in points()["points"]]


def validate_points(ids: Sequence[str]) -> Iterator[Case]:
    """Simulate the points with these ids, one after another."""
    for point in points()["points"]:
        if point["id"] in ids:
            yield _case(point)


def _case(point: Mapping[str, Any]) -> Case:
    scenario = Scenario.model_validate({**points()["base"], **point.get("set", {})})
    role = point["phase"]
    plan = plan_pool(scenario, role)
    seconds = _step_s(scenario, point)
    ranks_per_node = plan.dp / (plan.gpus / points()["gpus_per_node"])
    tokens = point["tokens"] if role == "prefill" else point["sequences"] * _tokens_per_step(scenario)
    published = float(point["tokens_per_s_per_node"])
    where = f"{scenario.gpu} {scenario.engine} {scenario.precision.weights} EP{plan.ep}"
    what = (
        f"{role} of {point.get('tokens') or point['sequences']} at {point.get('prompt') or point['context']}"
    )
    simulated = tokens * ranks_per_node / seconds
    return Case(point["id"], f"{role}_tput_per_node", published, simulated, None, where, what)


def _step_s(scenario: Scenario, point: Mapping[str, Any]) -> float:
    """Seconds of a step in which every rank has the same load; prompts attend to half of themselves on average."""
    plan = plan_pool(scenario, point["phase"])
    cost = pool_step_cost(scenario, plan)
    if point["phase"] == "decode":
        return cost.decode_s(np.full(plan.dp, float(point["sequences"])), np.full(plan.dp, point["context"]))
    return cost.prefill_s(
        np.full(plan.dp, float(point["tokens"])), np.full(plan.dp, (point["prompt"] + 1) / 2)
    )


def _tokens_per_step(scenario: Scenario) -> float:
    """Expected tokens of a sequence per decode step: 1 + a1 + a1 a2 + ... of its drafts' acceptance."""
    accepted = (scenario.speculation.acceptance or ())[: scenario.speculation.draft_tokens]
    return 1.0 + float(np.cumprod(accepted).sum())
