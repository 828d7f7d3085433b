"""Expectations that were written down before a family of services was simulated."""

from dataclasses import replace

import pytest

from sim.validation import predictions
from sim.validation.case import Case
from sim.validation.predictions import Prediction, compared
from sim.validation.rows import read_rows
from sim.validation.skips import skipped
from sim.validation.table import TABLES

FAMILY = Prediction(
    "2026-01-01", "x", {"tpot": (-0.1, 0.1), "throughput": (0.2, 0.3)}, "why", frozenset({"A", "B"})
)
CASE = Case(
    id="A", metric="tpot", published=1.0, simulated=1.0, layout="x", point="", model="", gpu="", engine="",
    precision="", phase="service",
)  # fmt: skip


def test_every_disaggregated_row_of_v4_is_in_one_family() -> None:
    rows = read_rows(TABLES["v4"])
    left_out = skipped(rows)
    kept = [row.id for row in rows if row.disaggregated and row.id not in left_out]
    counts = {id: sum(id in one.rows for one in predictions.predictions()) for id in kept}
    assert len(kept) == 76 and {*counts.values()} == {1}


def test_a_prediction_is_a_range_with_a_reason() -> None:
    for one in predictions.predictions():
        assert one.why and one.rows
        assert all(low < high for low, high in one.ranges.values())


def test_found_beside_expected_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of TPOT: +5, -1% of the family, +90% of another row: a median of +2% of two. Throughput: +40%, outside."""
    monkeypatch.setattr(predictions, "predictions", lambda: [FAMILY])
    assert next(compared([]))[2:6] == [
        "-10% to +10%",
        "not simulated yet",
        "+20% to +30%",
        "not simulated yet",
    ]
    cases = [
        replace(CASE, simulated=1.05),
        replace(CASE, id="B", simulated=0.99),
        replace(CASE, id="C", simulated=1.9),
        replace(CASE, metric="total_tput_per_gpu", simulated=1.4),
    ]
    assert next(compared(cases))[3:6:2] == ["+2% (2 rows)", "+40% (1 rows), outside"]
