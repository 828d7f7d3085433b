"""A cached prefix on a table that has none: the table's own time plus what the form counts for the prefix."""

import numpy as np
import pytest

from sim.catalog import model
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Table
from sim.kernels.family import Dims, Variant

FORM = Form(1e-6, 16.0, (1e12,), (1e15,))
"""Compute binds: 81,920 FLOP per pair and layer of 128 heads at 1 TFLOP/s."""

DIMS = Dims.of(model("deepseek-v3.2"))


@pytest.fixture
def priced():
    columns = {"heads": [128.0, 128.0], "batch": [1.0, 1.0], "new": [100.0, 200.0], "cached": [0.0, 0.0]}
    arrays = {axis: np.array(values) for axis, values in columns.items()}
    variant = Variant("bf16", {"kv_cache": "bf16"})
    return PricedTable(
        Table("mla_prefill", variant, "", "a test", arrays, np.array([1e-3, 3e-3]), Fit(FORM, "linear")),
        DIMS,
    )


def test_the_prefix_costs_its_pairs(priced):
    # 100 new behind 50: 100 x 50 = 5,000 more pairs x 81,920 FLOP / 1e12
    seconds, how = priced.seconds({"heads": 128, "batch": 1, "new": 100, "cached": 50})
    assert seconds == pytest.approx(1e-3 + 5000 * 81_920 / 1e12, rel=1e-3)
    assert how == "extrapolated"


def test_a_longer_prefix_is_never_faster(priced):
    times = [
        priced.seconds({"heads": 128, "batch": 1, "new": 150, "cached": cached})[0]
        for cached in (0, 1, 10, 1e3, 1e5)
    ]
    assert times == sorted(times)
