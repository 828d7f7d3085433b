"""Steps of a sequence with drafts: its mean against the formula of the accept length, and reproducibility."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.serving.speculation import DraftAcceptance

chances = st.lists(st.floats(0, 1), min_size=1, max_size=4)


def test_accept_length_by_hand() -> None:
    # 1 + 0.8 + 0.8 x 0.5 = 2.2
    assert DraftAcceptance([0.8, 0.5], seed=0).accept_length == pytest.approx(2.2)


def test_mean_tokens_per_step_is_the_accept_length() -> None:
    drafts = DraftAcceptance([0.8, 0.5], seed=3)
    steps = sum(drafts.steps(request, 1000) for request in range(200))
    assert 200 * 1000 / steps == pytest.approx(2.2, rel=0.01)


def test_the_unlucky_and_the_lucky_end() -> None:
    assert DraftAcceptance([0.0, 1.0], 0).steps(1, 77) == 77
    assert DraftAcceptance([1.0, 1.0], 0).steps(1, 77) == 26  # 3 tokens per step


@given(chances, st.integers(0, 2**31), st.integers(1, 500))
def test_steps_are_bounded_and_reproducible(acceptance: list[float], request: int, tokens: int) -> None:
    steps = DraftAcceptance(acceptance, seed=5).steps(request, tokens)
    assert -(-tokens // (1 + len(acceptance))) <= steps <= tokens
    assert steps == DraftAcceptance(acceptance, seed=5).steps(request, tokens)
