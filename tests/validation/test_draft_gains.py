"""What drafts gain: simulated against published (draft_gains.yaml holds cases and sources)."""

import pytest

from sim.validation.draft_gains import case_scenario, cases, draft_gains


def gain(case: str, drafts: int) -> float:
    table = draft_gains().set_index(["case", "drafts"])
    return float(table.simulated[case, drafts])


def test_the_gain_falls_with_the_batch() -> None:
    """1.8 at batch 1, 1.5 at 32, 1.14 at 128 per rank."""
    one = gain("SGLang, 8 H200, TP8, batch 1", 1)
    many = gain("SGLang, 8 H200, TP8, batch 32", 1)
    most = gain("SGLang, 128 H200, EP96, 128 per rank", 1)
    assert one > many > most > 1
    assert (one, many, most) == (
        pytest.approx(1.8, rel=0.15),
        pytest.approx(1.5, rel=0.15),
        pytest.approx(1.142, rel=0.15),
    )


def test_dense_models_are_near_what_was_published() -> None:
    """Nine of ten. The tenth, whose context is not stated, was 9.5% off with even experts: skewed as recorded they read
    fewer weights, and a step of 16.8 ms of host time gains more. The other nine came nearer with the same change."""
    table = draft_gains()
    dense = table[~table.case.str.contains("V3.2")]
    assert len(dense) == 10
    apart = dense.case == "SGLang, 8 H200, TP8, batch 32"
    assert dense[~apart].error.abs().max() < 0.075
    assert dense[apart].error.abs().max() < 0.12


def test_more_drafts_stop_paying_at_batch_1() -> None:
    """TensorRT-LLM's R1 peaks at three drafts: 1.78, 2.25, 2.28, 2.21, 2.15."""
    gains = [gain("TensorRT-LLM, 8 B200, TP8, batch 1", drafts) for drafts in (1, 2, 3, 4, 5)]
    assert max(gains) == gains[2]


def test_every_case_is_a_scenario_with_a_source() -> None:
    for case in cases():
        assert case_scenario(case).model.startswith("deepseek")
        assert case["source"] and case["note"]
