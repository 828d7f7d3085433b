"""The gate against selections worked out by hand, and its invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.experts.gate import draw_choices, gate, select
from sim.experts.popularity import lognormal_popularity, selection_probability


def chosen(row: np.ndarray) -> set[int]:
    return set(row.tolist())


def test_top_k_without_groups() -> None:
    assert chosen(select(np.array([[0.1, 0.9, 0.3, 0.8]]), 2)[0]) == {1, 3}


def test_group_limit_scores_groups_by_their_two_best() -> None:
    # Top-4 from 2 of 3 groups: K / M = 2 scores per group. Groups of three:
    #   A = .90 .10 .05 -> 1.00;  B = .60 .55 .50 -> 1.15;  C = .70 .45 .40 -> 1.15 + 0 (C: .70 + .45 = 1.15)
    # A holds the single best expert and is cut all the same.
    scores = np.array([[0.90, 0.10, 0.05, 0.60, 0.55, 0.50, 0.70, 0.45, 0.40]])
    assert chosen(select(scores, 4, groups=3, group_limit=2)[0]) == {3, 4, 5, 6}
    assert chosen(select(scores, 4)[0]) == {0, 6, 3, 4}


def test_bias_changes_who_is_selected_after_the_sigmoid() -> None:
    # sigmoid(0) = 0.5, sigmoid(1) = 0.731; a bias of 0.3 lifts the first to 0.8.
    logits = np.array([[0.0, 1.0]])
    assert chosen(gate(logits, np.zeros(2), 1)[0]) == {1}
    assert chosen(gate(logits, np.array([0.3, 0.0]), 1)[0]) == {0}


def test_too_few_experts_in_the_kept_groups() -> None:
    with pytest.raises(ValueError, match="1 groups of 4 experts cannot give top-8"):
        select(np.zeros((1, 32)), 8, groups=8, group_limit=1)


@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 4), top_k=st.integers(1, 8))
def test_distinct_experts_from_few_groups(seed: int, limit: int, top_k: int) -> None:
    scores = np.random.default_rng(seed).random((5, 64))
    for row in select(scores, top_k, groups=8, group_limit=limit):
        assert len(chosen(row)) == top_k
        assert len({expert // 8 for expert in chosen(row)}) <= limit


def test_sampled_choices_follow_the_popularity() -> None:
    rng = np.random.default_rng(1)
    wanted = selection_probability(lognormal_popularity(1.05, 4, 256, rng), 8)
    choices = draw_choices(wanted, 8, 20_000, rng)
    for layer in range(4):
        share = np.bincount(choices[layer].ravel(), minlength=256) / 20_000
        assert np.abs(share - wanted[layer]).sum() / 2 < 0.05 * 8  # total variation
        assert share[wanted[layer].argmax()] == pytest.approx(wanted[layer].max(), rel=0.05)


def test_hopeless_and_certain_experts_raise_no_warning() -> None:
    wanted = np.zeros((1, 16))
    wanted[0, :4] = 1.0
    with np.errstate(all="raise"):
        choices = draw_choices(wanted, 4, 100, np.random.default_rng(0))
    assert chosen(choices.ravel()) == {0, 1, 2, 3}


def test_the_same_draw_again_leaves_its_generator_where_the_first_one_left_it() -> None:
    wanted = selection_probability(lognormal_popularity(1.05, 2, 64, np.random.default_rng(1)), 8)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    first, second = draw_choices(wanted, 8, 50, one), draw_choices(wanted, 8, 50, other)
    assert (first == second).all()
    assert one.random() == other.random() != np.random.default_rng(3).random()
    assert (draw_choices(wanted, 8, 50, one) != first).any(), "further draws are others"
