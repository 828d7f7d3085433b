"""The copies that the exchange tables were measured with are those of an even routing."""

import pytest

from sim.experts.routing import copies as routed
from sim.experts.routing import touched_evenly
from sim.kernels.exchange import copies


@pytest.mark.parametrize(("ep", "nodes"), [(8, 1), (32, 4), (64, 8)])
def test_copies_of_an_even_routing(ep: int, nodes: int) -> None:
    """Within 6%: the routing draws 8 of 256 experts without returning them, the tables' count with."""
    touched = touched_evenly(256, 8, ep, ep // nodes)
    near, far = copies(ep, nodes, 8, "low_latency")
    assert (near, far) == pytest.approx(
        (routed(touched, "low_latency").nvlink, routed(touched, "low_latency").rdma)
    )
    near, far = copies(ep, nodes, 8, "normal")
    assert near * nodes == pytest.approx(routed(touched, "normal").nvlink, rel=0.06)  # with what is passed on
    assert far == pytest.approx(routed(touched, "normal").rdma, rel=0.06)
