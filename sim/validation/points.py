"""Published throughputs of one step at a fixed load, prefill or decode alone, and what a mechanism gains there.

The data, with sources, is `points.yaml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from sim.deployment.plan import Deployment, resolve
from sim.mechanisms.speculation import accept_length
from sim.model.layout import Phase
from sim.scenario.schema import Scenario
from sim.step import PromptLoad
from sim.step.pricing import pool_step_cost
from sim.validation.case import Case, described

FILE: Final = Path(__file__).with_name("points.yaml")


@cache
def points() -> Mapping[str, Any]:
    """`points.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def ids() -> list[str]:
    """Of all points, then of all gains, in their order."""
    return [entry["id"] for kind in ("points", "gains") for entry in points()[kind]]


def cases(wanted: Sequence[str]) -> Iterator[Case]:
    """Simulate the points and gains with these ids, one after another."""
    for point in points()["points"]:
        if point["id"] in wanted:
            gpus = points()["gpus_per_node"]
            published = point.get("tokens_per_s_per_node") or point["tokens_per_s_per_gpu"] * gpus
            simulated = _tokens_per_s(point) * gpus / setup(point)[1].gpus
            yield _case(point, point["id"], f"{point['phase']}_tput_per_node", float(published), simulated)
    for gain in points()["gains"]:
        if gain["id"] in wanted:
            yield _gain(gain)


def _gain(gain: Mapping[str, Any]) -> Case:
    """Throughput with over without, less 1: both published and simulated, so that the error is that of the gain."""
    [point] = [p for p in points()["points"] if p["id"] == gain["point"]]
    load = "tokens" if point["phase"] == "prefill" else "sequences"
    here = {**point, load: gain.get("load", point[load])}
    without = {**here, "set": {**point.get("set", {}), **gain["without"]}}
    simulated = _tokens_per_s(here) / _tokens_per_s(without) - 1
    return _case(here, gain["id"], "gain", gain["gain"], simulated, f"{gain['name']}: ")


def _case(
    point: Mapping[str, Any], id: str, metric: str, published: float, simulated: float, name: str = ""
) -> Case:
    scenario, deployment = setup(point)
    ep = deployment.pool(point["phase"]).ep
    load, length = (point.get(a) or point[b] for a, b in (("tokens", "sequences"), ("prompt", "context")))
    return Case(
        id=id,
        metric=metric,
        published=published,
        simulated=simulated,
        layout=f"{scenario.gpu} {scenario.engine} {scenario.precision.weights} EP{ep}",
        point=f"{name}{point['phase']} of {load} at {length}",
        source=points()["sources"][point["base"]],
        **described(scenario, point["phase"]),
    )


def setup(point: Mapping[str, Any]) -> tuple[Scenario, Deployment]:
    """The scenario of a point, and its deployment, with the pool that it is about."""
    scenario = Scenario.model_validate({**points()["bases"][point["base"]], **point.get("set", {})})
    return scenario, resolve(scenario, point["phase"])


def _tokens_per_s(point: Mapping[str, Any]) -> float:
    load, length = ("sequences", "context") if point["phase"] == "decode" else ("tokens", "prompt")
    return tokens_per_s(setup(point)[1], point["phase"], point[load], point[length])


def tokens_per_s(deployment: Deployment, phase: Phase, load: float, length: float) -> float:
    """Of all ranks of a worker, which have the same load.

    decode: `load` sequences of `length` KV tokens. prefill: `load` new tokens of prompts of `length`, which attend to
    half of themselves on average.
    """
    plan = deployment.pool(phase)
    cost, loads = pool_step_cost(deployment, plan.role), np.full(plan.dp, float(load))
    if phase == "decode":
        step_s = cost.decode_s(loads, np.full(plan.dp, float(length)))
        return float(plan.dp * load * accept_length(deployment) / step_s)
    return float(plan.dp * load / cost.prefill_s(PromptLoad.alike(loads, np.full(plan.dp, (length + 1) / 2))))
