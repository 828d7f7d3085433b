"""Accept lengths of multi-token prediction against the published ones, and the fit that turns them into chances."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.acceptance import fit_chances, scale_chances
from sim import catalog
from sim.catalog.facts import read, values

ROWS = [
    (model, row) for model, rows in read("acceptance.yaml").items() if isinstance(rows, list) for row in rows
]


def length(model: str, drafts: int, task: str | None = None, thinking: bool | None = None) -> float:
    return catalog.accept_length(catalog.acceptance(model, drafts, task, thinking))


@pytest.mark.parametrize(
    ("model", "drafts", "published"),
    [
        ("deepseek-r1", 1, 1.82),  # vLLM pull request 12755
        ("deepseek-v3", 1, 1.90),  # SGLang pull request 3582
        ("deepseek-v3", 2, 2.18),  # LMSYS, 2025-07-17, 65K input
        ("deepseek-v3", 3, 2.44),
        ("deepseek-v3-0324", 7, 3.20),  # nebius model card, temperature 0
        ("deepseek-v3-0324", 7, 3.09),  # the same, temperature 1
    ],
)
def test_published_accept_lengths_of_v3_and_r1_within_three_percent(
    model: str, drafts: int, published: float
) -> None:
    assert length(model, drafts) == pytest.approx(published, rel=0.03)


def test_v32_is_above_the_floor_of_sglang_s_tests() -> None:
    assert length("deepseek-v3.2", 3) > 2.5
    assert length("deepseek-v3.2", 3) == pytest.approx(2.65, rel=0.01)  # SGLang pull request 20809
    assert length("deepseek-v3.2", 3, "chat") == pytest.approx(2.46, rel=0.01)  # ShareGPT


def test_thinking_makes_drafts_harder_to_guess() -> None:
    """InferenceX, SPEED-Bench coding, three drafts: 2.97 without thinking, 2.49 with it."""
    assert length("deepseek-v3.2", 3, "coding", False) == pytest.approx(2.97, rel=0.03)
    assert length("deepseek-v3.2", 3, thinking=True) == pytest.approx(2.49, rel=0.03)


@pytest.mark.parametrize(("model", "row"), ROWS, ids=lambda part: part if isinstance(part, str) else "")
def test_no_draft_is_likelier_than_the_one_before(model: str, row: dict) -> None:
    chances = values(row["chances"])
    assert all(later <= earlier for earlier, later in pairwise(chances))
    assert 0 <= chances[-1] <= chances[0] <= 1


@pytest.mark.parametrize(("model", "row"), ROWS, ids=lambda part: part if isinstance(part, str) else "")
def test_stored_chances_are_what_the_lengths_fit_to(model: str, row: dict) -> None:
    lengths = {k: np.atleast_1d(a).tolist() for k, a in values(row["lengths"]).items()}
    stored = values(row["chances"])
    if row["chances"]["note"].startswith("fitted"):
        assert stored == pytest.approx(fit_chances(lengths), abs=2e-3)
    else:  # another row's shape, times the factor that meets the one length
        shape = values(
            next(r for m, r in ROWS if m == "deepseek-r1" and r["task"] == "single_stream")["chances"]
        )
        [(drafts, [published])] = lengths.items()
        assert stored == pytest.approx(scale_chances(shape, drafts, published), abs=2e-3)


def test_a_fit_meets_lengths_that_falling_chances_can_make() -> None:
    # 0.8, 0.5, 0.25: 1 + 0.8 + 0.4 + 0.1
    assert fit_chances({1: [1.8], 2: [2.2], 3: [2.3]}) == pytest.approx((0.8, 0.5, 0.25), abs=0.02)


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_fit_never_rises(chances: list[float]) -> None:
    published = {k: [catalog.accept_length(tuple(chances[:k]))] for k in range(1, len(chances) + 1)}
    fitted = fit_chances(published)
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(fitted))


def test_names_fall_back_on_their_model_and_later_drafts_on_the_last_chance() -> None:
    assert catalog.acceptance("DeepSeek-R1-0528", 1) == catalog.acceptance("deepseek-r1", 1)
    assert catalog.acceptance("deepseek-v3.1", 3) == catalog.acceptance("deepseek-v3", 3)
    assert catalog.acceptance("deepseek-v3", 5)[3:] == catalog.acceptance("deepseek-v3", 3)[2:] * 2
    assert catalog.acceptance("deepseek-v3", 0) == ()


def test_what_is_not_published_is_not_guessed() -> None:
    with pytest.raises(catalog.UnknownName, match=r"speculation\.acceptance"):
        catalog.acceptance("qwen3-235b", 1)
    with pytest.raises(catalog.UnknownName, match="long_context"):
        catalog.acceptance("deepseek-v3", 1, "translation")
    with pytest.raises(catalog.UnknownName, match="coding, not thinking or coding, thinking"):
        catalog.acceptance("deepseek-v3.2", 1, "coding")  # which mode?
    assert catalog.acceptance_tasks("qwen3-235b") == ()
