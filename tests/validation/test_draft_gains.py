"""What drafts gain: simulated against published (draft_gains.yaml holds cases and sources)."""

from functools import cache

import pytest

from sim.validation.case import Case
from sim.validation.draft_gains import cases, entries, entry_scenario, ids


@cache
def gains() -> dict[str, Case]:
    return {case.id: case for case in cases(ids())}


def test_the_gain_falls_with_the_batch() -> None:
    """1.8 at batch 1, 1.5 at 32, 1.14 at 128 per rank."""
    one, many, most = (gains()[id].simulated for id in ("MTP1-1", "MTP2-1", "MTP4-1"))
    assert one > many > most > 1
    assert (one, many, most) == (
        pytest.approx(1.8, rel=0.15),
        pytest.approx(1.5, rel=0.15),
        pytest.approx(1.142, rel=0.15),
    )


def test_dense_models_are_near_what_was_published() -> None:
    """Nine of ten. The tenth, whose context is not stated, was 9.5% off with even experts: skewed as recorded they read
    fewer weights, and a step of 16.8 ms of host time gains more. The other nine came nearer with the same change."""
    errors = {id: abs(case.error) for id, case in gains().items() if "v3.2" not in case.model}
    assert len(errors) == 10
    assert errors.pop("MTP2-1") < 0.12
    assert max(errors.values()) < 0.075


def test_more_drafts_stop_paying_at_batch_1() -> None:
    """TensorRT-LLM's R1 peaks at three drafts: 1.78, 2.25, 2.28, 2.21, 2.15."""
    found = [gains()[f"MTP5-{drafts}"].simulated for drafts in (1, 2, 3, 4, 5)]
    assert max(found) == found[2]


def test_every_case_is_a_scenario_with_a_source() -> None:
    for entry in entries():
        assert entry_scenario(entry).model.startswith("deepseek")
        assert entry["source"] and entry["note"]
