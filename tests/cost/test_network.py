"""Collectives over several nodes: limits by hand, published runs of nccl-tests, and that more never costs less."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import catalog
from sim.catalog import Gpu, collectives, efficiency, gpu
from sim.cost.latency import PRICED_BY, AnalyticCost, InSituCost, Latency
from sim.cost.measured import ProfileCost
from sim.cost.network import NetworkCost
from sim.cost.profile import load_profile
from sim.model.exchanges import collective
from sim.model.operations import Operation
from sim.step.prices import seconds_by_source

H100 = gpu("h100_sxm")
LINKS = collectives()
KINDS = ("all_reduce", "all_gather", "reduce_scatter")
ROOFLINE = AnalyticCost(H100, efficiency())
OVER_NODES = NetworkCost(ROOFLINE, H100, LINKS)


def measured(device: str, engine: str) -> NetworkCost:
    """What a scenario of this GPU and engine is priced by, back to back."""
    on = gpu(device)
    cost = ProfileCost(load_profile(f"{on.nearest_measured}/{engine}"), AnalyticCost(on, efficiency()), on)
    return NetworkCost(cost, on, LINKS, cost.collectives_to, cost.all_reduce_spans_rack)


def us(cost: NetworkCost, kind: str, size: float, gpus: int) -> float:
    return cost.price(collective(kind, "x", size, gpus)).seconds * 1e6


@dataclass(frozen=True)
class OneNode:
    """One node of 8 GPUs as published: microseconds of a small message, and bus bandwidth of a large one."""

    start_us: float
    bus_gb_per_s: float

    def knows(self, operation: Operation) -> bool:
        return True

    def price(self, operation: Operation) -> Latency:
        gpus, size = operation.shape["gpus"], operation.shape["bytes"]
        bus = size * (gpus - 1) / gpus * (2 if operation.kernel == "all_reduce" else 1)
        return Latency(
            self.start_us * 1e-6 + bus / (self.bus_gb_per_s * 1e9), "measured", "published", "link"
        )


def bus_gb_per_s(node: OneNode, nic_gb_per_s: float, kind: str, size: float, gpus: int = 16) -> float:
    """Bus bandwidth, as nccl-tests counts it, over nodes of 8 GPUs."""
    device = replace(H100, scale_out_bytes_per_s=nic_gb_per_s * 1e9)
    seconds = NetworkCost(node, device, LINKS).price(collective(kind, "x", size, gpus)).seconds
    return size * (gpus - 1) / gpus * (2 if kind == "all_reduce" else 1) / seconds / 1e9


def test_small_messages_take_the_node_and_the_hops() -> None:
    """By hand, 2 and 4 nodes of 8 with a node of 15 us. Tree: 2 log2(N) hops of 9.4 us. Ring: N - 1 hops of 7.8 us,
    each with 7 steps of 1.9 us inside the node. The bytes' own time (16 B) is below a nanosecond."""
    cost = NetworkCost(OneNode(15.0, 400.0), H100, LINKS)
    assert us(cost, "all_reduce", 16, 16) == pytest.approx(15 + 2 * 9.4, abs=0.01)
    assert us(cost, "all_reduce", 16, 32) == pytest.approx(15 + 4 * 9.4, abs=0.01)
    assert us(cost, "all_gather", 16, 16) == pytest.approx(15 + 1 * (7.8 + 7 * 1.9), abs=0.01)
    assert us(cost, "reduce_scatter", 16, 32) == pytest.approx(15 + 3 * (7.8 + 7 * 1.9), abs=0.01)


def test_large_messages_take_the_nics_of_a_node() -> None:
    """By hand, 64 GB behind a fast NVLink: the 8 NICs of 50 GB/s carry 376 GB/s at 0.94. All-reduce moves S through
    them on a tree of two nodes, 2 S 31/32 on a ring of four; all-gather S 15/16."""
    size, node = 64e9, NetworkCost(OneNode(15.0, 1e6), H100, LINKS)
    assert us(node, "all_reduce", size, 16) == pytest.approx(size / 376e9 * 1e6, rel=0.01)
    assert us(node, "all_reduce", size, 32) == pytest.approx(2 * size * 31 / 32 / 376e9 * 1e6, rel=0.01)
    assert us(node, "all_gather", size, 16) == pytest.approx(size * 15 / 16 / 376e9 * 1e6, rel=0.01)


def test_nvlink_bounds_what_is_faster_than_it() -> None:
    """A node with 400 GB/s of bus bandwidth sends 2 x 15/16 S over it: slower than S over 376 GB/s of NICs."""
    node = NetworkCost(OneNode(15.0, 400.0), H100, LINKS)
    assert us(node, "all_reduce", 64e9, 16) == pytest.approx(2 * 15 / 16 * 64e9 / 400e9 * 1e6, rel=0.01)


def test_the_roofline_sends_by_nvlink_and_nics_at_once() -> None:
    """By hand, 1 GB on 2 x 8 H100 without a profile: 2 x 15/16 GB over 0.8 of 450 GB/s of NVLink take 5.208 ms, longer
    than the 2.66 ms that the NICs take; 10 us of latency and two hops of 9.4 + 9 us (simple) or 3.5 (ll128) remain.
    One GPU per node sends nothing over NVLink: 2 x 15/16 GB through 47 GB/s on a ring of 16, 39.89 ms, and hops."""
    assert us(OVER_NODES, "all_reduce", 1e9, 16) == pytest.approx(5208 + 10 + 2 * (9.4 + 3.5), abs=5)
    alone = replace(H100, scale_up_domain=1)
    hops = 10 + 2 * 15 * (7.8 + 11.3)
    priced = NetworkCost(AnalyticCost(alone, efficiency()), alone, LINKS)
    assert us(priced, "all_reduce", 1e9, 16) == pytest.approx(39894 + hops, rel=0.001)


NDV4 = {"all_reduce": OneNode(16.96, 231.45), "all_gather": OneNode(12.53, 253.59)}
"""One NDmv4 node (8 A100): microsoft/mscclpp docs/performance-ndmv4.md, commit 7f3f366."""


def test_the_published_latencies_that_the_hops_come_from() -> None:
    """The same page, two nodes of 8, 1 KB: all-reduce 35.85 us, all-gather 33.74."""
    for kind, published in (("all_reduce", 35.85), ("all_gather", 33.74)):
        assert us(NetworkCost(NDV4[kind], H100, LINKS), kind, 1024, 16) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("node", "nic", "kind", "size", "published", "bound"),
    [
        # The same page, 2 x 8, 8 x 200 Gb/s, 1 GiB. (Its all-reduce is not here: on the A100, without NVLink SHARP,
        # NCCL stays with a ring, and 183.8 GB/s are 0.92 of the NICs.)
        (NDV4["all_gather"], 25.0, "all_gather", 2**30, 177.05, 0.10),
        # create-a3mega-ztan-fork commit 02dd8f4: two a3-mega nodes (8 H100, 8 x 200 Gb/s), 8 GiB.
        (OneNode(15.6, 480.0), 25.0, "all_reduce", 2**33, 338.82, 0.05),
        # nccl-tests issue 319: two nodes of 8 H100 with 8 x 400 Gb/s reach 450 GB/s; one node 479.7.
        (OneNode(15.6, 479.7), 50.0, "all_reduce", 2**34, 450.0, 0.10),
    ],
)
def test_published_bus_bandwidth(
    node: OneNode, nic: float, kind: str, size: float, published: float, bound: float
) -> None:
    assert bus_gb_per_s(node, nic, kind, size) == pytest.approx(published, rel=bound)


@given(
    st.sampled_from(KINDS), st.floats(1, 1e9), st.floats(1, 8), st.sampled_from([8, 16, 24, 32, 64, 128, 256])
)
def test_more_bytes_and_more_nodes_never_cost_less(kind: str, size: float, times: float, gpus: int) -> None:
    here = us(OVER_NODES, kind, size, gpus)
    assert us(OVER_NODES, kind, size * times, gpus) >= here * (1 - 1e-12)
    assert us(OVER_NODES, kind, size, gpus + 8) >= here * (1 - 1e-12)


@given(st.sampled_from(KINDS), st.floats(1, 1e9))
def test_the_same_gpus_on_more_nodes_are_not_faster(kind: str, size: float) -> None:
    """64 GPUs in one domain, and in 2, 4, 8 and 16 nodes."""
    spread = [replace(H100, scale_up_domain=64 // nodes) for nodes in (1, 2, 4, 8, 16)]
    prices = [us(NetworkCost(AnalyticCost(d, efficiency()), d, LINKS), kind, size, 64) for d in spread]
    assert all(before <= after * (1 + 1e-12) for before, after in pairwise(prices))


@given(st.sampled_from(KINDS), st.floats(1, 1e9), st.sampled_from([2, 4, 8]))
def test_one_node_is_priced_as_it_was_measured(kind: str, size: float, gpus: int) -> None:
    operation = collective(kind, "x", size, gpus)
    for engine in ("sglang", "trtllm", "vllm"):
        cost = measured("h100_sxm", engine)
        assert cost.price(operation) == cost.cost.price(operation)


def test_in_a_profile_too_nodes_add_to_the_price() -> None:
    """With the measured node inside, from one token's hidden state on (14,336 B)."""
    for device in ("h100_sxm", "h200_sxm", "b200_sxm", "h800_sxm"):
        cost = measured(device, "sglang")
        for kind in KINDS:
            for size in (14_336, 1e5, 1e6, 58.7e6, 1e9):
                prices = [us(cost, kind, size, gpus) for gpus in (8, 16, 32, 64, 128)]
                assert all(before < after for before, after in pairwise(prices)), (device, kind, size)


def test_the_share_of_the_node_stays_measured() -> None:
    """All-reduce of 16 KiB among 16 H100: NCCL on 8 is measured (18.98 us, comm_nccl, 8,192 halves), two hops not."""
    cost = InSituCost(measured("h100_sxm", "sglang"), 1.5)
    operation = collective("all_reduce", "x", 16_384, 16, layers=2)
    latency = cost.price(operation)
    assert dict(latency.shares)["measured"] == pytest.approx(1.5 * 18.98e-6, rel=0.01)
    assert sum(seconds for _, seconds in latency.shares) == pytest.approx(latency.seconds)
    assert "on 8 GPUs of a node" in latency.source and "2 nodes" in latency.source
    by_source = dict(zip(PRICED_BY, seconds_by_source([operation], cost), strict=True))
    assert by_source["measured"] == pytest.approx(2 * 1.5 * 18.98e-6, rel=0.01)
    assert by_source["analytic"] > 0


# GB300 NVL72, us of a small all-reduce on 8 and 16 GPUs: aiconfigurator-core 0.12.0, comm_custom_allreduce, 1 KiB.
@pytest.mark.parametrize(("engine", "gpus", "published"), [("sglang", 8, 28.1), ("sglang", 16, 48.8)])
def test_a_rack_scales_within_nvlink(engine: str, gpus: int, published: float) -> None:
    """Carried from 4 GB200: the ring has more steps, and no NIC is touched."""
    cost = measured("gb200_nvl72", engine)
    assert us(cost, "all_reduce", 1024, gpus) == pytest.approx(published, rel=0.15)
    latency = cost.price(collective("all_reduce", "x", 1024, gpus))
    assert latency.priced_by == "extrapolated" and "NVLink" in latency.source


def test_an_engine_whose_own_all_reduce_spans_the_rack() -> None:
    """TensorRT-LLM on 16 GB300: 5.2 us (the same table)."""
    assert us(measured("gb200_nvl72", "trtllm"), "all_reduce", 1024, 16) == pytest.approx(5.2, rel=0.15)


def test_beyond_a_rack_the_nics_of_all_its_gpus_carry() -> None:
    """144 GPUs are two NVL72 racks, not 36 nodes: the tree has two hops, and 72 NICs carry 3.4 TB/s."""
    rack = replace(gpu("gb200_nvl72"))
    cost = NetworkCost(OneNode(25.0, 1e6), rack, LINKS)
    assert us(cost, "all_reduce", 16, 144) == pytest.approx(25 + 2 * 9.4, abs=0.01)
    assert us(cost, "all_reduce", 1e12, 144) == pytest.approx(1e12 / (72 * 50e9 * 0.94) * 1e6, rel=0.02)


def test_a_described_gpu_of_one_has_nics_only() -> None:
    """A GPU from a datasheet or a laboratory, alone in its domain: finite, and growing."""
    device: Gpu = catalog.described_gpu(
        "lab", {"memory_bytes": 80e9, "memory_bytes_per_s": 3e12, "bf16_flop_per_s": 1e15}
    )
    cost = NetworkCost(AnalyticCost(device, efficiency()), device, LINKS)
    assert 0 < us(cost, "all_reduce", 1e6, 2) < us(cost, "all_reduce", 1e6, 4)
