"""Attention and the price of a token against its position: dense (V3.1) beside sparse with an indexer (V3.2)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from sim.cost.latency import PricedOperation, price_all
from sim.deployment.plan import Deployment, resolve
from sim.kernels import plays
from sim.mechanisms.speculation import accept_length
from sim.model.layout import Phase
from sim.model.operations import Operation
from sim.price import gpu_hour
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.step.prices import Prices
from sim.step.pricing import cost_model, step_operations
from sim.step.surface import Surface
from sim.units import HOUR_S, MILLION


@cache
def reference() -> Scenario:
    """The deployment that the published costs belong to."""
    text = resources.files("sim.mechanisms").joinpath("reference.yaml").read_text(encoding="utf-8")
    return parse(text, "reference.yaml").scenario


def published_cost() -> pd.DataFrame:
    """Published USD per million tokens by position, on H800 at 2 USD an hour; straight between the listed points.

    Columns: model, phase, position, usd_per_million, source.
    """
    with resources.files("sim.mechanisms").joinpath("published_cost.csv").open(encoding="utf-8") as text:
        return pd.read_csv(text)


def cost_by_position(
    models: Sequence[str], phase: Phase, positions: Sequence[int], batch: int, draft_tokens: int = 0
) -> pd.DataFrame:
    """USD per million tokens at a position of the sequence, on the deployment of the published costs.

        decode:  price of a GPU second x T(b, L) / (a b), b = `batch` sequences per rank, a tokens per step with drafts
        prefill: price of a GPU second x S(n, L) / n, a chunk of n = `batch` tokens that starts at position L

    Columns: model, phase, position, usd_per_million, step_s.
    """
    rows = []
    for model in models:
        speculation = reference().speculation.model_copy(update={"draft_tokens": draft_tokens})
        scenario = reference().model_copy(update={"model": model, "speculation": speculation})
        deployment = resolve(scenario, phase)
        usd_per_s = gpu_hour(deployment.gpu, scenario.price).usd / HOUR_S
        tokens = batch * (accept_length(deployment) if phase == "decode" else 1.0)
        for position, step_s in zip(positions, _steps_s(deployment, phase, positions, batch), strict=True):
            usd = usd_per_s * step_s / tokens * MILLION
            rows.append(
                {
                    "model": model,
                    "phase": phase,
                    "position": position,
                    "usd_per_million": usd,
                    "step_s": step_s,
                }
            )
    return pd.DataFrame(rows)


def _steps_s(deployment: Deployment, phase: Phase, positions: Sequence[int], batch: int) -> list[float]:
    """Seconds of a step at each position, overlap included."""
    step = step_operations(deployment, phase)
    context = np.array([max(p, 1) for p in positions] + [max(*positions, 1) + 1], dtype=float)

    def attention(load: float, length: float) -> list[Operation]:
        if phase == "decode":
            return step.decode_attention(load, length)
        return step.prefill_attention(1, load, length)

    rest = step.decode_rest if phase == "decode" else step.prefill_rest
    prices = Prices(attention, rest, cost_model(deployment, phase), step.overlap)
    surface = Surface(np.array([float(batch)]), context, prices)
    load = np.array([float(batch)])
    return [surface.step_s(surface.core_s(load, context[i : i + 1]), load) for i in range(len(positions))]


def attention_parts(
    scenario: Scenario, models: Sequence[str], phase: Phase, contexts: Sequence[int], batch: int
) -> pd.DataFrame:
    """Seconds of the attention of one step over all layers by context, split into what it is made of.

    `batch`: sequences per rank in decode; new tokens of one prompt in prefill. Priced part by part, so that the sum
    may differ from a block that was measured as a whole. Columns: model, context, part (projections, indexer, core),
    seconds, priced_by (the sources of most of the seconds).
    """
    rows: list[dict[str, Any]] = []
    for model in models:
        mine = resolve(scenario.model_copy(update={"model": model}), phase)
        step = step_operations(mine, phase)
        cost = cost_model(mine, phase)
        for context in contexts:
            if phase == "decode":
                blocks = step.decode_attention(batch, context)
            else:
                blocks = step.prefill_attention(1, batch, context)
            priced = price_all([part for block in blocks for part in _alone(block)], cost)
            rows += _by_part(priced, {"model": model, "context": context})
    return pd.DataFrame(rows)


def _alone(block: Operation) -> list[Operation]:
    return [replace(part, layers=block.layers) for part in block.parts]


def _by_part(priced: Sequence[PricedOperation], row: dict[str, Any]) -> list[dict[str, Any]]:
    seconds = dict.fromkeys(("core", "indexer", "projections"), 0.0)
    sources: dict[str, dict[str, float]] = {part: {} for part in seconds}
    for one in priced:
        part = _part(one.operation)
        seconds[part] += one.total_s
        by = sources[part]
        by[one.latency.priced_by] = by.get(one.latency.priced_by, 0.0) + one.total_s
    return [
        {**row, "part": part, "seconds": s, "priced_by": max(sources[part], key=sources[part].__getitem__)}
        for part, s in seconds.items()
        if sources[part]
    ]


def _part(operation: Operation) -> str:
    if plays(operation.kernel, "indexer") or "indexer" in operation.name:  # its projections carry its name
        return "indexer"
    return "core" if plays(operation.kernel, "core") else "projections"
