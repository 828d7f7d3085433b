"""INT4 experts: half a byte and a share of a BF16 scale per weight, read from memory; multiplied as BF16."""

import pytest

from sim import catalog
from sim.cost.latency import AnalyticCost
from sim.kernels.formats import weight_bytes
from sim.model.operations import routed_experts

SHAPE = (8.0, 48.0, 8.0, 7168, 256.0)
"""8 rows on 8 of 48 experts of 7168 x 256, as a rank of Kimi K2 under TP8 has them."""


def test_bytes_are_those_of_the_checkpoint() -> None:
    """compressed-tensors, groups of 32: 4 bits each and 16 bits per group, (4 + 16 / 32) / 8 bytes."""
    assert weight_bytes(32 * 7, "int4") == 32 * 7 * 4.5 / 8
    int4, bf16 = (routed_experts(*SHAPE, dtype) for dtype in ("int4", "bf16"))
    weights = 8 * 3 * 7168 * 256
    assert bf16.bytes - int4.bytes == pytest.approx(weights * (2 - 4.5 / 8))
    assert int4.flop == bf16.flop


def test_a_small_batch_gains_what_it_does_not_read_and_a_large_one_nothing() -> None:
    cost = AnalyticCost(catalog.gpu("h200"), catalog.efficiency())
    floor = catalog.efficiency().launch_floor_s

    def seconds(rows: float, dtype: str) -> float:
        return cost.price(routed_experts(rows, 48.0, min(rows, 48.0), 7168, 256.0, dtype)).seconds - floor

    assert seconds(8, "int4") == pytest.approx(seconds(8, "bf16") * 4.5 / 16, rel=0.05)
    assert seconds(1e6, "int4") == pytest.approx(seconds(1e6, "bf16"))
