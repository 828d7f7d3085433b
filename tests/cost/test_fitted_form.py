"""The fitted form, and the linear work of a block, against hand computation."""

import numpy as np
import pytest

from sim.catalog import model
from sim.cost.form import Form
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Variant

DIMS = Dims.of(model("deepseek-v3.2"))
FP8 = Variant("fp8", {"kv_cache": "fp8"})
BF16 = Variant("bf16", {"kv_cache": "bf16"})


def test_sharpness_one_adds_and_a_large_one_takes_the_longer():
    # 4 FLOP at 2 FLOP/s = 2 s, 9 B at 3 B/s = 3 s, 1 s of launch
    assert Form(1.0, 1.0, (2.0,), (3.0,)).seconds([(4.0, 9.0)]) == pytest.approx(6.0)
    assert Form(1.0, 60.0, (2.0,), (3.0,)).seconds([(4.0, 9.0)]) == pytest.approx(4.0)
    # p = 2: 1 + sqrt(4 + 9)
    assert Form(1.0, 2.0, (2.0,), (3.0,)).seconds([(4.0, 9.0)]) == pytest.approx(1 + 13**0.5)


def test_launches_are_added_to_the_work_or_hide_behind_it():
    # 3 s of launches, 4 FLOP at 1 FLOP/s = 4 s of work: q = 1 adds, q = 2 makes sqrt(9 + 16), large takes the longer
    for q, expected in ((1.0, 7.0), (2.0, 5.0), (60.0, 4.0)):
        form = Form(3.0, 1.0, (1.0,), (1.0,), q)
        assert form.seconds([(4.0, 0.0)]) == pytest.approx(expected)
        assert form.seconds_each([(np.array([4.0]), 0.0)], 1) == pytest.approx([expected])
        assert form.seconds([(0.0, 0.0)]) == pytest.approx(3.0)
        assert form.slower(2.0).seconds([(4.0, 0.0)]) == pytest.approx(2 * expected)


@pytest.mark.parametrize("q", [1.0, 3.0])
def test_many_shapes_at_once_equal_one_by_one(q):
    form = Form(1.0, 2.5, (2.0, 1.0), (3.0, 4.0), q)
    flop, traffic = np.array([4.0, 0.0, 7.0]), np.array([9.0, 5.0, 0.0])
    each = form.seconds_each([(flop, traffic), (0.0, traffic)], 3)
    alone = [form.seconds([(f, b), (0.0, b)]) for f, b in zip(flop, traffic, strict=True)]
    assert each == pytest.approx(alone)


def test_another_gpu_scales_only_the_resource_that_differs():
    form = Form(1.0, 60.0, (2.0,), (3.0,))
    slower_memory = form.scaled("gemm", {"compute": 1.0, "memory": 0.5})
    assert slower_memory.seconds([(4.0, 9.0)]) == pytest.approx(1 + 6)
    assert slower_memory.seconds([(400.0, 9.0)]) == pytest.approx(form.seconds([(400.0, 9.0)]))
    link = Form(0.0, 1.0, (1.0,), (10.0,)).scaled("all_reduce", {"compute": 1.0, "scale_up": 0.4})
    assert link.seconds([(0.0, 100.0)]) == pytest.approx(25.0)


def test_a_block_does_the_linear_work_of_the_published_parameters():
    """187,105,280 attention parameters per layer of V3 and 13,959,168 of the indexer: 2 FLOP each per token."""
    shape = {"heads": 128, "batch": 1, "context": 0, "queries": 1}
    assert FAMILIES["mla_decode_block"].work(shape, FP8, DIMS)[0][0] == 2 * 187_105_280
    assert FAMILIES["dsa_decode_block"].work(shape, FP8, DIMS)[0][0] == 2 * (187_105_280 + 13_959_168)


def test_two_queries_are_twice_the_heads_of_a_core_and_twice_the_sequences_of_a_block():
    shape = {"heads": 16, "batch": 4, "context": 1000, "queries": 2}
    assert FAMILIES["mla_decode"].reference(shape)["heads"] == 32
    assert FAMILIES["mla_decode_block"].reference(shape)["batch"] == 8
