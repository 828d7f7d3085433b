"""Steps of a sequence with drafts: its mean against the formula of the accept length, and reproducibility."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.serving.decode_batch import DecodeBatch
from sim.serving.served_request import ServedRequest
from sim.serving.speculation import AdaptiveDrafts, DraftAcceptance, Pace

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


@given(st.integers(0, 2**63), st.integers(0, 2**40), st.integers(1, 500))
def test_the_draws_are_those_of_a_generator_of_the_request_alone(
    seed: int, request: int, tokens: int
) -> None:
    """Steps of 1 + the drafts accepted, one draw each, from numpy's Philox with key (seed, request)."""
    random = np.random.Generator(np.random.Philox(key=(seed, request)))
    done = taken = 0
    while done < tokens:
        draws = random.random(int((tokens - done) / 2.2) + 8)
        for draw in draws:
            if done < tokens:
                done, taken = done + 1 + (draw < 0.8) + (draw < 0.8 * 0.5), taken + 1
    drafts = DraftAcceptance([0.8, 0.5], seed)
    drafts.steps(request + 1, 77)
    assert drafts.steps(request, tokens) == taken


def test_drafts_by_batch_end_beyond_the_last_level() -> None:
    three, one = DraftAcceptance([0.8, 0.7, 0.6], 0), DraftAcceptance([0.8], 0)
    drafts = AdaptiveDrafts([(8, three), (32, one)])
    assert [drafts.at(batch) for batch in (1, 8, 9, 32)] == [three, three, one, one]
    assert drafts.at(33).steps(0, 50) == 50
    assert drafts.at(33) is drafts.at(100)


def test_a_redrawn_sequence_keeps_its_tokens_and_blocks_and_finishes_later_or_sooner() -> None:
    """100 tokens in 50 steps; after 20 steps 40 are made, and the other 60 take one step each."""
    batch = DecodeBatch(1, 4, kv_blocks=100, block_tokens=16)
    pace = Pace(AdaptiveDrafts([(1, DraftAcceptance([1.0], 0))]), batch)
    first, second = (ServedRequest(i, 30, 0, 100) for i in range(2))
    batch.reserve(0, 30)
    pace.join(first, 0)
    pace.adapt()
    assert batch.next_change() == 50
    batch.advance(20)
    batch.reserve(0, 30)
    pace.join(second, 0)
    pace.adapt()  # two sequences: no more drafts
    assert first.generated_tokens == 40
    assert batch.next_change() == 20 + 60
    assert batch.ranks[0].used_after(batch.step) == 5 + 2  # 70 and 30 tokens in blocks of 16
    [(done, _)] = batch.advance(60)
    assert done is first and first.generated_tokens == 100
    pace.adapt()  # one sequence: drafts again for its last 40 tokens
    assert batch.next_change() == 80 + 20
    batch.advance(20)
    assert (batch.running, batch.ranks[0].demand) == (0, 0)
