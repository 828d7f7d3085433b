"""Scaling a table to a GPU of another balance counts whole tiles: hand-computed, H20 against H100."""

from dataclasses import replace

import numpy as np
import pytest

from sim.catalog import efficiency, gpu, model
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Table
from sim.cost.tiles import at_least, computed_rows, padded
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Variant

H100, H20 = gpu("h100_sxm"), gpu("h20_96")
FP8 = Variant("fp8", {})
DIMS = Dims.of(model("deepseek-v3.2"))


def table_of(kernel: str, shape: dict[str, float], us: float, form: Form, backend: str = "") -> Table:
    """A table of one measured shape."""
    columns = {axis: np.array([value], float) for axis, value in shape.items()}
    return Table(kernel, FP8, backend, "a test", columns, np.array([us * 1e-6]), Fit(form, "linear"))


def growth(kernel: str, backend: str, shape: dict[str, float], variant: Variant = FP8) -> list[float]:
    """Computed over useful FLOP of each stage."""
    stages = FAMILIES[kernel].work(shape, variant, DIMS)
    whole = padded(kernel, backend, variant.dtype, shape, stages)
    assert [b for _, b in whole] == [b for _, b in stages]  # what is moved stays
    return [f / useful for (f, _), (useful, _) in zip(whole, stages, strict=True) if useful]


@pytest.mark.parametrize(
    ("rows", "tiles", "computed"),
    [
        (1, [64], 64),
        (64, [64], 64),
        (65, [64], 128),
        (9, [16, 64], 16),
        (18, [16, 64], 64),
        (100, [16, 64], 128),
    ],
)
def test_rows_fill_the_smallest_tile_that_holds_them(rows: float, tiles: list[int], computed: float) -> None:
    assert computed_rows(rows, tiles) == computed


def test_padding_by_hand() -> None:
    """24 tokens of a GEMM: 64 / 24. Two rows an expert: 16 / 2 with Triton, 64 / 2 with DeepGEMM's masked kernel.
    Sixteen heads of a TP shard: 64 / 16, with two queries 64 / 32; 128 heads none."""
    assert growth("gemm", "", {"m": 24, "n": 100, "k": 100}) == [pytest.approx(64 / 24)]
    experts = {"rows": 200, "active": 100, "hidden": 7168, "inter": 256}
    assert growth("moe", "triton", experts) == [pytest.approx(8)]
    assert growth("moe", "deepep_low_latency", experts) == [pytest.approx(32)]
    decode = {"batch": 24, "context": 4608, "queries": 1}
    assert growth("mla_decode", "", {"heads": 16, **decode}) == [pytest.approx(4)]
    assert growth("mla_decode", "", {"heads": 16, **decode, "queries": 2}) == [pytest.approx(2)]
    assert growth("mla_decode", "", {"heads": 128, **decode}) == [pytest.approx(1)]
    assert growth("mla_decode_block", "fa3", {"heads": 16, **decode}) == [
        pytest.approx(64 / 24),
        pytest.approx(4),
    ]
    # Sparse decode: each query has keys of its own, so drafts do not fill the tile.
    sparse = growth("dsa_decode_block", "", {"heads": 16, **decode, "queries": 2})
    assert sparse == [pytest.approx(64 / 48), 1.0, pytest.approx(4)]
    prompt = {"heads": 16, "batch": 1, "new": 4096, "cached": 0}
    assert growth("dsa_prefill_block", "", prompt, Variant("fp8", {"branch": "dense"})) == [1.0, 1.0]


def on_h20(kernel: str, shape: dict[str, float], form: Form, us: float, backend: str = "") -> float:
    """Seconds on H20 of a shape that took `us` on H100."""
    table = table_of(kernel, shape, us, form, backend)
    speed = {"compute": H20.fp8_flop_per_s / H100.fp8_flop_per_s, "memory": 4.0 / 3.35}
    return PricedTable(table, DIMS, form.scaled(kernel, speed)).seconds(shape)[0]


@pytest.mark.parametrize("m", [1, 64])
def test_a_small_gemm_is_memory_on_an_h100_and_compute_on_an_h20(m: int) -> None:
    """64 rows are 128 FLOP per byte of FP8 weight: the H100 has 591, the H20 74. So an H20 takes 128 / 74 = 1.73 times
    as long as its memory, and not 3.35 / 4.0 of what the H100 takes."""
    form = Form(0.0, 32.0, (H100.fp8_flop_per_s,), (H100.memory_bytes_per_s,))
    shape = {"m": m, "n": 20_000.0, "k": 20_000.0}
    us = (4e8 + m * 20_000 * 3) / H100.memory_bytes_per_s * 1e6
    computing = 64 * 2 * 4e8 / H20.fp8_flop_per_s
    assert on_h20("gemm", shape, form, us) == pytest.approx(computing, rel=0.01)
    assert computing > 1.6 * us * 1e-6 * 3.35 / 4.0


@pytest.mark.parametrize("rows", [100, 200, 800, 1600])
def test_experts_are_never_faster_than_their_memory(rows: float) -> None:
    """100 experts of 5.5 MB: 550 MB, 164 us on an H100; Triton's tiles of 16 rows make 32 FLOP per byte, below the
    H20's 74, so memory binds there too; DeepGEMM's of 64 make 128, which takes 1.73 times as long."""
    form = Form(0.0, 32.0, (H100.fp8_flop_per_s, 1.0), (H100.memory_bytes_per_s, 1e30))
    shape = {"rows": rows, "experts": 256.0, "active": 100.0, "hidden": 7168.0, "inter": 256.0}
    weights = 100 * 3 * 7168 * 256
    us = weights / H100.memory_bytes_per_s * 1e6
    memory_s = us * 1e-6 * 3.35 / 4.0
    assert on_h20("moe", shape, form, us, "triton") == pytest.approx(memory_s, rel=0.01)
    computing = weights * 2 * 64 / H20.fp8_flop_per_s
    assert on_h20("moe", shape, form, us, "deepep_low_latency") == pytest.approx(computing, rel=0.01)


def test_the_own_gpu_is_priced_as_measured() -> None:
    form = Form(0.0, 32.0, (H100.fp8_flop_per_s,), (H100.memory_bytes_per_s,))
    shape = {"m": 1.0, "n": 1000.0, "k": 1000.0}
    assert PricedTable(table_of("gemm", shape, 12.0, form), DIMS).seconds(shape)[0] == pytest.approx(12e-6)


def test_no_slower_than_what_was_measured_there() -> None:
    """H20: DeepGEMM reached 0.84 of 296 TFLOP/s; a fit that would make it 0.4 is lifted, Triton's is not."""
    reached = efficiency().reached["h20_96"]
    form = Form(0.0, 1.0, (0.4 * H20.fp8_flop_per_s, 1.0), (1.0, 1.0))
    lifted = at_least(form, "moe", "deepep_low_latency", "fp8", H20, reached)
    assert lifted == replace(form, flop_per_s=(0.84 * H20.fp8_flop_per_s, 1.0))
    assert at_least(form, "moe", "triton", "fp8", H20, reached) == form
    block = at_least(form, "mla_decode_block", "fa3", "fp8", H20, reached)
    assert block.flop_per_s == (0.88 * H20.fp8_flop_per_s, 0.73 * H20.bf16_flop_per_s)
    assert at_least(form, "moe", "cutlass", "fp8", H100, {}) == form
