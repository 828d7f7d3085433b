"""Placement: replication and packing worked out by hand, and what must hold for every placement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.experts.placement import Placement, balance, contiguous, moved_slots, pack, replicate


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_replicas_go_to_the_most_load_per_copy() -> None:
    # 9 4 1: 9 -> two copies of 4.5; 4.5 > 4 -> three copies of 3; now 4 leads -> two copies of 2.
    assert replicate(np.array([[9.0, 4.0, 1.0]]), 3).tolist() == [[3, 2, 1]]


def test_packing_puts_the_heaviest_into_the_lightest_bin_with_room() -> None:
    # 7 -> A; 5 -> B; 4 -> B, lighter and then full; 1 -> A, the only bin with room.
    assert pack(np.array([[5.0, 1.0, 7.0, 4.0]]), 2).tolist() == [[2, 1, 0, 3]]


def test_contiguous() -> None:
    placement = contiguous(2, 8, 4)
    assert placement.local_slots == 2
    assert placement.experts.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]] * 2
    assert placement.rank_load(np.arange(16.0).reshape(2, 8)).tolist() == [[1, 5, 9, 13], [17, 21, 25, 29]]
    assert contiguous(1, 4, 2, redundant=2).experts.tolist() == [[0, 1, 2, 3, 0, 1]]


def test_copies_share_the_load_evenly() -> None:
    placement = Placement(np.array([[0, 1, 0, 2]]), 2)
    load = np.array([[6.0, 1.0, 2.0]])
    assert placement.replicas().tolist() == [[2, 1, 1]]
    assert placement.slot_load(load).tolist() == [[3.0, 1.0, 3.0, 2.0]]
    assert placement.rank_load(load).tolist() == [[4.0, 5.0]]


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(64, 8, 0, 1), (64, 8, 8, 1), (64, 8, 8, 4), (64, 12, 8, 1), (64, 16, 32, 8)]),
)
def test_every_expert_has_a_slot_and_no_load_is_lost(seed: int, shape: tuple[int, int, int, int]) -> None:
    experts, ranks, redundant, nodes = shape
    load = np.random.default_rng(seed).lognormal(0, 1.5, (3, experts))
    placement = balance(load, ranks, redundant, np.random.default_rng(seed), nodes, groups=8)
    replicas = placement.replicas()
    assert replicas.shape == (3, experts)
    assert replicas.min() >= 1
    assert (replicas.sum(axis=1) == experts + redundant).all()
    assert placement.local_slots * ranks == experts + redundant
    rank_load = placement.rank_load(load)
    assert rank_load.sum(axis=1) == pytest.approx(load.sum(axis=1))
    # A rank's load is at least the mean, and greedy packing leaves no more than one slot's load above it.
    spread = rank_load.max(axis=1) - rank_load.mean(axis=1)
    if nodes == 1:
        assert (spread <= placement.slot_load(load).max(axis=1) + 1e-9).all()


def test_hierarchical_keeps_groups_whole_on_a_node() -> None:
    load = np.random.default_rng(1).lognormal(0, 1, (20, 64))
    placement = balance(load, 8, 8, rng(), nodes=4, groups=8)
    by_node = placement.experts.reshape(20, 4, 18) // 8
    for layer in by_node:
        groups_of = [set(node.tolist()) for node in layer]
        assert all(len(groups) == 2 for groups in groups_of)
        assert set.union(*groups_of) == set(range(8))


def test_even_load_has_no_memory_of_the_experts_order() -> None:
    placement = balance(np.ones((50, 64)), 8, 0, rng())
    same_rank = placement.experts.reshape(50, 8, 8) // 8
    # In order, a rank would hold one whole run of 8 experts, or one of each of the 8 runs. A random 8 of 64 meet
    # 8 (1 - C(56, 8) / C(64, 8)) = 5.43 runs.
    distinct = np.mean([len(set(rank.tolist())) for layer in same_rank for rank in layer])
    assert distinct == pytest.approx(5.43, abs=0.2)


def test_nodes_must_divide() -> None:
    with pytest.raises(ValueError, match="3 nodes do not divide 8 groups"):
        balance(np.ones((1, 64)), 9, 8, rng(), nodes=3, groups=8)
    with pytest.raises(ValueError, match="72 slots do not divide by 16 ranks"):
        balance(np.ones((1, 64)), 16, 8, rng())


def test_moved_slots_counts_experts_new_to_their_rank() -> None:
    before = Placement(np.array([[0, 1, 2, 3]]), 2)
    after = Placement(np.array([[1, 0, 2, 0]]), 2)
    # Rank 0 holds the same two experts; rank 1 gets expert 0 anew: one slot over two ranks.
    assert moved_slots(before, after) == 0.5
    assert moved_slots(before, before) == 0.0
