"""Load by token count and reach per token, against closed forms and published figures."""

import numpy as np
import pytest

from sim.catalog import model
from sim.experts import Touched, expert_load
from sim.experts.placement import Policy, contiguous
from sim.experts.routing import (
    choose_slots,
    copies,
    expected_imbalance,
    node_sizes,
    sampled_imbalance,
    sampled_rows,
    touched_by,
    touched_evenly,
)
from sim.scenario.schema import Experts

V3 = model("deepseek-v3")


# Simulated for this project with independent scores and normal logits, 200,000 tokens (MODEL section 3 of its design;
# other code than ours). 8 GPUs per node, top-8 of 256, 4 of 8 groups; 288 slots: global placement.
@pytest.mark.parametrize(
    ("ep", "gpus_per_node", "redundant", "nodes", "gpus"),
    [
        (32, 8, 0, 3.12, 6.85),
        (64, 8, 0, 3.96, 7.49),
        (128, 8, 0, 5.72, 7.83),  # a group of 32 experts spans two nodes
        (32, 8, 32, 3.61, 7.26),
        (144, 8, 32, 6.67, 7.90),
        (72, 72, 32, 1.0, 7.71),
    ],
)
def test_nodes_and_gpus_touched(
    ep: int, gpus_per_node: int, redundant: int, nodes: float, gpus: float
) -> None:
    policy: Policy = "global" if redundant else "contiguous"
    settings = Experts(redundant=redundant, popularity_sigma=0, node_limit=4)
    table = expert_load(V3, ep=ep, gpus_per_node=gpus_per_node, experts=settings, policy=policy)
    assert table.nodes_touched == pytest.approx(nodes, rel=0.01)
    assert table.gpus_touched == pytest.approx(gpus, rel=0.01)
    node_count = ep // gpus_per_node
    assert table.remote_nodes == pytest.approx(nodes * (node_count - 1) / node_count, rel=0.01)


def test_hierarchical_placement_keeps_the_locality_that_global_loses() -> None:
    def nodes(policy: Policy) -> float:
        settings = Experts(redundant=32, popularity_sigma=1.05, node_limit=4)
        return expert_load(V3, ep=32, gpus_per_node=8, experts=settings, policy=policy).nodes_touched

    # Contiguous 3.12, random 3.61 (above); popularity moves both a little.
    assert nodes("hierarchical") == pytest.approx(3.12, rel=0.03)
    assert nodes("global") == pytest.approx(3.61, rel=0.03)


def test_closed_form_without_group_limit() -> None:
    # Two nodes of 4 experts, top-2 of 8: a node is missed with C(4, 2) / C(8, 2) = 6 / 28.
    even = touched_evenly(8, 2, 4, 2)
    assert even.nodes == pytest.approx(2 * (1 - 6 / 28))
    # Four ranks of 2 experts: missed with C(6, 2) / 28 = 15 / 28.
    assert even.gpus == pytest.approx(4 * (1 - 15 / 28))
    assert even.remote_nodes == pytest.approx(1 - 6 / 28)
    assert even.remote_pairs == pytest.approx(1.0)
    assert even.own_pairs == pytest.approx(0.5)
    assert even.forwarded == pytest.approx(even.gpus / 2)


@pytest.mark.parametrize(("ranks", "gpus_per_node"), [(32, 8), (64, 8), (8, 8), (64, 72), (32, 12)])
def test_sampling_agrees_with_the_closed_form(ranks: int, gpus_per_node: int) -> None:
    rng = np.random.default_rng(4)
    choices = np.argsort(rng.random((1, 20_000, 256)), axis=2)[:, :, :8]
    placement = contiguous(1, 256, ranks)
    sampled = touched_by(choose_slots(choices, placement, rng), placement, gpus_per_node)
    even = touched_evenly(256, 8, ranks, gpus_per_node)
    for field in Touched.__slots__:
        assert getattr(sampled, field) == pytest.approx(getattr(even, field), rel=0.01, abs=1e-9), field


def test_copies_of_one_token_by_hand() -> None:
    # 4 ranks on 2 nodes, one expert each; the token's two experts are on ranks 2 and 3, and on each source rank a
    # quarter of the tokens. Sources 0 and 1 cross once (normal) or twice (low latency); sources 2 and 3 never.
    placement = contiguous(1, 4, 4)
    touched = touched_by(np.array([[[2, 3]]]), placement, gpus_per_node=2)
    assert (touched.nodes, touched.gpus) == (1, 2)
    low = copies(touched, "low_latency")
    assert low.rdma == pytest.approx((2 + 2 + 0 + 0) / 4)
    assert low.nvlink == pytest.approx((0 + 0 + 1 + 1) / 4)
    normal = copies(touched, "normal")
    assert normal.rdma == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert normal.nvlink == pytest.approx(
        (1 + 1 + 1 + 1) / 4
    )  # the receiving (or sending) GPU needs one itself


def test_two_experts_of_one_rank_travel_once_in_normal_mode() -> None:
    placement = contiguous(1, 8, 4)
    touched = touched_by(np.array([[[6, 7]]]), placement, gpus_per_node=1)
    assert copies(touched, "low_latency").rdma == pytest.approx(2 * 3 / 4)
    assert copies(touched, "normal").rdma == pytest.approx(3 / 4)
    assert copies(touched, "normal").nvlink == 0.0


def test_node_sizes() -> None:
    assert node_sizes(20, 8).tolist() == [8, 8, 4]
    assert node_sizes(4, 8).tolist() == [4]


def test_a_slot_of_a_copied_expert_is_chosen_evenly() -> None:
    placement = contiguous(1, 2, 1, redundant=2)  # slots 0 1 0 1
    slots = choose_slots(np.zeros((1, 10_000, 1), dtype=np.int64), placement, np.random.default_rng(0))
    assert np.bincount(slots.ravel(), minlength=4) / 10_000 == pytest.approx([0.5, 0, 0.5, 0], abs=0.02)


def test_sampled_imbalance_of_two_even_ranks() -> None:
    # Two pairs on two ranks: both on one rank with chance 1/2, so E[max] = 3/2 against a mean of 1.
    load = np.ones((40_000, 2))
    assert sampled_imbalance(load, 2, np.random.default_rng(0)) == pytest.approx(1.5, rel=0.01)
    assert sampled_rows(load, 2, np.random.default_rng(0)).sum(axis=1).tolist() == [2] * 40_000
    assert expected_imbalance(load) == 1.0
    assert expected_imbalance(np.array([[3.0, 1.0], [1.0, 1.0]])) == pytest.approx((1.5 + 1.0) / 2)


def test_the_busiest_node_is_judged_by_tokens_that_did_not_choose_it() -> None:
    # Four ranks on two nodes, one expert each; three of four tokens choose expert 0 (node 0), the rest expert 3.
    choices = np.array([[[0], [0], [0], [0], [0], [0], [3], [3]]])
    assert touched_by(choices, contiguous(1, 4, 4), 2).node_skew == pytest.approx(0.75 / 0.5)
    # Three nodes of which the last has one GPU: its NICs carry half of the tokens, a third of their share each.
    last = np.array([[[4], [4], [4], [4], [0], [1], [2], [3]]])
    assert touched_by(last, contiguous(1, 5, 5), 2).node_skew == pytest.approx(0.5 / (1 / 5))
