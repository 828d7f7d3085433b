"""Drafts by batch in the step cost: each batch is priced with the drafts that its fullest rank has."""

from dataclasses import replace

import numpy as np
import pytest
from even_routing import balanced_routing
from steady_ranks import Steady

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost
from sim.model.layout import Layout
from sim.step.build import build_step_cost
from sim.step.decode_lines import DecodeLines
from sim.step.operations import StepOperations

COST = AnalyticCost(gpu("h200_sxm"), efficiency())
LAYOUT = Layout(model("deepseek-v3"), 16, 1, 16, 8, dispatch_mode="low_latency")
DRAFTS = 3
PLAIN = StepOperations(LAYOUT, balanced_routing(LAYOUT, 16), engine("sglang"), DRAFTS)
ADAPTIVE = replace(PLAIN, adaptive=((8, 3), (32, 1)))


def seconds(step: StepOperations, fullest: float) -> float:
    cost = build_step_cost({"decode": step}, COST, 64, 1)
    sequences = np.array([1.0, fullest])
    return cost.decode_s(sequences, np.full(2, 4096.0))


@pytest.mark.parametrize(("batch", "drafts"), [(1, 3), (8, 3), (9, 1), (32, 1), (33, 0), (64, 0)])
def test_a_step_runs_the_drafts_of_its_fullest_rank(batch: int, drafts: int) -> None:
    assert ADAPTIVE.at(batch).draft_tokens == drafts
    fixed = replace(PLAIN, draft_tokens=drafts)
    assert seconds(ADAPTIVE, batch) == pytest.approx(seconds(fixed, batch), rel=0.02)


def test_a_run_is_booked_where_it_was_priced() -> None:
    cost = build_step_cost({"decode": ADAPTIVE}, COST, 64, 1)
    rank = Steady(4, 4096.0, 1.0)
    lines = DecodeLines(cost, [rank])
    for batch in (4, 16, 64):
        rank.sequences = batch
        lines.hold(batch)
        lines.renew([0], 0)
        lines.run(0, 1, batch)
        lines.book(2.0)
    assert sum(cost.provenance_s().values()) == pytest.approx(6.0)
