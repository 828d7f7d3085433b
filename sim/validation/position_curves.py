"""Cost per million tokens against position: DeepSeek-V3.1 and V3.2 on H800 at 2 USD an hour, beside what was published.

The published curves are straight between a few points, so that their slopes are seconds of attention per key, and
their intercepts everything else. Slopes are the test. Batch, overlap and MTP were not published: here nothing hides
behind anything, MTP runs with one draft, and the batch is that of DeepSeek's 24 hours (position_curves.yaml).

    tokenworks validate curves      # slopes, published beside simulated
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from sim.catalog.facts import values
from sim.cost.latency import price_all
from sim.deployment.plan import resolve
from sim.mechanisms import published_cost
from sim.mechanisms.attention import reference
from sim.mechanisms.speculation import accept_length
from sim.model.layout import Phase
from sim.price import gpu_hour
from sim.scenario.schema import Scenario
from sim.scenario.step import Overlap, Speculation
from sim.step.operations import typical_prompts
from sim.step.pricing import cost_model, step_operations
from sim.units import HOUR_S, MILLION
from sim.validation.case import Case, described

Floats = NDArray[np.float64]

BATCHES: Final[Mapping[Phase, tuple[int, ...]]] = {
    "decode": tuple(2**n for n in range(11)),
    "prefill": tuple(2**n for n in range(8, 17)),
}
"""Batches that are tried for the one that an intercept implies: sequences, or tokens of a chunk."""


@cache
def settings() -> dict[str, Any]:
    """What is simulated: position_curves.yaml without units and notes."""
    text = resources.files("sim.validation").joinpath("position_curves.yaml").read_text(encoding="utf-8")
    return values(yaml.safe_load(text))  # type: ignore[no-any-return]


def curve_scenario(model: str) -> Scenario:
    """The deployment of the published costs with the model's cache and MTP, nothing overlapped."""
    chosen = settings()
    speculation = Speculation(draft_tokens=chosen["draft_tokens"], acceptance=tuple(chosen["acceptance"]))
    return reference().model_copy(
        update={
            "model": model,
            "precision": reference().precision.model_copy(update={"kv_cache": chosen["kv_cache"][model]}),
            "speculation": speculation,
            "overlap": Overlap(shared_expert=False, two_batch=False),
        }
    )


def cost_at(
    scenario: Scenario, phase: Phase, positions: Sequence[float], batch: int, exchange: bool = True
) -> Floats:
    """USD per million tokens at positions, one operation after the other; `exchange`: what moves between GPUs counts.

    decode:  price of a GPU second x T(b, L) / (a b), b = `batch` sequences of L keys, a tokens per step and sequence
    prefill: price of a GPU second x S(n, L) / n, n = `batch` new tokens that attend to L keys on average; positions
             before the middle of the shortest prompt cost what it costs
    """
    deployment = resolve(scenario, phase)
    step, cost = step_operations(deployment, phase), cost_model(deployment, phase)
    step = step.at(batch) if phase == "decode" else step
    rest = step.decode_rest(batch) if phase == "decode" else step.prefill_rest(batch)
    accepted = accept_length(deployment) if phase == "decode" else 1.0
    usd_per_s = gpu_hour(deployment.gpu, scenario.price).usd / HOUR_S
    rest = [o for o in rest if exchange or o.group != "communication"]
    rest_s = sum(priced.total_s for priced in price_all(rest, cost))
    found = []
    shortest = settings()["shortest_prompt"] / 2
    for position in positions:
        if phase == "decode":
            attention = step.decode_attention(batch, max(position, 1.0))
        else:
            attention = step.prefill_attention(*typical_prompts(batch, max(position, shortest)))
        seconds = rest_s + sum(priced.total_s for priced in price_all(attention, cost))
        found.append(usd_per_s * seconds / (accepted * batch) * MILLION)
    return np.array(found)


def _curves() -> Iterator[tuple[str, Phase, pd.DataFrame]]:
    """Model, phase and points of each published curve, in order of position."""
    phases: tuple[Phase, ...] = ("prefill", "decode")
    published = published_cost()
    for model in published.model.unique():
        for phase in phases:
            yield str(model), phase, published[(published.model == model) & (published.phase == phase)]


@lru_cache(maxsize=8)
def slopes(decode_batch: int | None = None) -> pd.DataFrame:
    """Every straight piece of the four published curves, and its slope here.

    Columns: model, phase, start, end, published and simulated (USD per million tokens and million positions), error
    (simulated / published - 1), main (the longest piece of its curve: its slope).
    """
    batches = settings()["batch"] | ({"decode": decode_batch} if decode_batch else {})
    rows = []
    for model, phase, points in _curves():
        positions = points.position.to_numpy(float)
        usd = cost_at(curve_scenario(model), phase, positions.tolist(), batches[phase])
        longest = np.diff(positions).max()
        ends = zip(positions, points.usd_per_million, usd, strict=True)
        for (start, before, here), (end, after, there) in pairwise(ends):
            published, simulated = ((after - before) / (end - start), (there - here) / (end - start))
            rows.append(
                {
                    "model": model,
                    "phase": phase,
                    "start": int(start),
                    "end": int(end),
                    "published": published * MILLION,
                    "simulated": simulated * MILLION,
                    "error": simulated / published - 1,
                    "main": end - start == longest,
                }
            )
    return pd.DataFrame(rows)


def ids() -> list[str]:
    """One per straight piece of a curve, such as `CURVE-v3.2-decode-0`: where it starts."""
    pieces = ((m, phase, start) for m, phase, points in _curves() for start in points.position[:-1])
    return [_id(model, phase, int(start)) for model, phase, start in pieces]


def cases(wanted: Sequence[str]) -> Iterator[Case]:
    """Slopes, in USD per million tokens and million positions."""
    for one in slopes().itertuples() if set(wanted) & set(ids()) else ():
        if (id := _id(one.model, one.phase, one.start)) in wanted:
            scenario = curve_scenario(one.model)
            yield Case(
                id=id,
                metric="slope",
                published=one.published,
                simulated=one.simulated,
                layout=f"{scenario.gpu} {scenario.precision.weights} of DeepSeek's published costs",
                point=f"{one.phase} from {one.start} to {one.end}",
                source="DeepSeek-V3.2-Exp report, figure 3 (digitised)",
                **described(scenario, one.phase),
            )


def _id(model: str, phase: str, start: int) -> str:
    return f"CURVE-{model.removeprefix('deepseek-')}-{phase}-{start}"


def intercepts() -> pd.DataFrame:
    """Cost of the first token: published, here, and the batch at which the two would agree.

    Columns: model, phase, published, batch, simulated (at that batch), hidden (the same with the exchange between GPUs
    wholly behind the computation: less no overlap can cost), implied_batch (the smallest whose `hidden` cost does not
    pass the published one; None where every batch is dearer) and cheapest (the least `hidden` cost of any batch).
    """
    rows = []
    for model, phase, points in _curves():
        scenario, batch = curve_scenario(model), settings()["batch"][phase]
        usd = float(points.usd_per_million.iloc[0])
        hidden = {
            b: float(cost_at(scenario, phase, [0], b, exchange=False)[0]) for b in (*BATCHES[phase], batch)
        }
        rows.append(
            {
                "model": model,
                "phase": phase,
                "published": usd,
                "batch": batch,
                "simulated": float(cost_at(scenario, phase, [0], batch)[0]),
                "hidden": hidden[batch],
                "implied_batch": min((b for b, cost in hidden.items() if cost <= usd), default=None),
                "cheapest": min(hidden.values()),
            }
        )
    return pd.DataFrame(rows)
