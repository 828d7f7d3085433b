"""Telling rows that measured launches or unfused norms from rows that measured kernels, on tables made by rule here."""

import csv
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest

from calibrate.importers import launches
from calibrate.importers.kernel_sums import kernel_seconds
from calibrate.importers.mending import LIST, less, only, write_list
from calibrate.importers.unfused import unfused_norms
from sim.catalog import efficiency, gpu, model
from sim.catalog.profiles import SHIPPED, shipped_profiles
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Table, load_profile
from sim.kernels.family import Dims, Variant
from sim.model.operations import Operation

HEADS, CONTEXTS = (16.0, 32.0, 64.0, 128.0), (256.0, 1024.0, 4096.0)
BATCHES = tuple(2.0**n for n in range(11))
US = 1e-6


def decode(seconds, batches=BATCHES):
    """A decode table with one row per heads, batch and context."""
    grid = np.array(list(product(HEADS, batches, CONTEXTS)))
    columns = dict(zip(("heads", "batch", "context"), grid.T, strict=True))
    us = np.array([seconds(*row) for row in grid]) * US
    return Table("mla_decode_block", Variant("fp8", {"kv_cache": "fp8"}), "", "a rule", columns, us)


def kernels_us(heads, batch, context):
    """40 us of kernels that wait, weights by the heads, and a core that works on one sequence after the other."""
    return 40 + heads / 4 + batch * (0.1 + context / 40_960)


def prefill(seconds):
    tokens = [2.0**n for n in range(2, 15)]
    grid = np.array(list(product(HEADS, [1.0], tokens)))
    columns = dict(zip(("heads", "batch", "new"), grid.T, strict=True))
    us = np.array([seconds(heads, new) for heads, _, new in grid]) * US
    return Table("mla_prefill_block", Variant("fp8", {"kv_cache": "fp8"}), "", "a rule", columns, us)


def test_prompts_that_wait_for_the_host_take_what_their_kernels_take():
    """Kernels: 50 us and 0.1 us a token; the block takes 1.2 times as long, and at least the host's 800 us.

    800 = 1.2 (50 + 0.1 n) at n = 6,167, and within a fifth of it to n = 7,500: of powers of two, 4,096 is the last
    prompt on the plateau. The first beyond, 8,192, takes 1,043 us, 174 longer than its kernels; a prompt of 1,024
    then takes its own 152.4 us and an eighth of that.
    """
    table = prefill(lambda heads, new: max(800.0, 1.2 * (50 + 0.1 * new)))
    kernels = (50 + 0.1 * table.shape["new"]) * US
    found = launches.plateau(table, kernels)
    assert np.array_equal(found.rows, table.shape["new"] <= 4096)
    assert found.seconds == pytest.approx(800 * US)
    instead = launches.without_launches(table, kernels, found)
    free = ~found.rows
    assert np.array_equal(instead[free], table.seconds[free])
    at_1024 = instead[table.shape["new"] == 1024]
    assert at_1024 == pytest.approx((152.4 + 0.2 * 869.2 / 8) * US)
    assert np.all(instead <= table.seconds)


def test_prompts_that_the_gpu_sets_the_time_of_stay():
    table = prefill(lambda heads, new: 1.4 * (50 + 0.1 * new))
    kernels = (50 + 0.1 * table.shape["new"]) * US
    assert not launches.plateau(table, kernels).rows.any()


def test_batches_beyond_the_captured_ones_are_found_by_their_jump():
    """Up to 256 sequences from a graph; beyond, the host's 1,300 us, many times twice those at half the batch."""
    table = decode(lambda *row: 1300.0 if row[1] > 256 else kernels_us(*row))
    assert np.array_equal(launches.uncaptured(table).rows, table.shape["batch"] > 256)
    assert not launches.uncaptured(decode(kernels_us)).rows.any()


def test_an_excess_that_nothing_changes_is_not_the_kernels():
    other = decode(kernels_us)
    table = decode(lambda *row: kernels_us(*row) + 60)
    beside = launches.excess(table, other)
    assert (beside.floor_s, beside.spread_s) == (pytest.approx(60 * US), pytest.approx(0, abs=1e-9))
    assert launches.verdict(table, other.seconds, beside) == "unfused"


def test_a_core_that_works_on_one_sequence_per_sm_is_slow_and_not_unfused():
    """60 us for every GPU-full of 128 sequences, the first included: as flat up to 128 as launches would be."""
    other = decode(kernels_us)
    table = decode(lambda h, b, c: kernels_us(h, b, c) + 60 * np.ceil(b / 128))
    assert launches.verdict(table, other.seconds, launches.excess(table, other)) == "kernels"


def test_an_excess_by_heads_or_within_the_sum_of_the_kernels_is_left_alone():
    other = decode(kernels_us)
    by_heads = decode(lambda h, b, c: kernels_us(h, b, c) + h)
    assert launches.verdict(by_heads, other.seconds, launches.excess(by_heads, other)) == ""
    table = decode(lambda *row: kernels_us(*row) + 60)
    assert launches.verdict(table, table.seconds / 1.1, launches.excess(table, other)) == ""


def two_releases(folder):
    rows = [
        {
            "system": "gb300", "fw": "vllm", "ver": version, "table": "t", "op_name": "mla_context_module",
            "kernel_source": "FLASH_ATTN", "kv_cache_dtype": "fp8", "gemm_type": gemm, "num_heads": 16,
            "batch_size": 1, "isl": tokens, "step": 0, "latency_ms": 0.05 + tokens * 1e-4 + more,
        }
        for version, gemm, (tokens, chains) in product(
            ("0.24.0", "0.27.0"), ("fp8_block", "bfloat16"), ((1, 0.04), (64, 0.06), (1024, 0.1))
        )
        for more in [chains if version == "0.24.0" else 0.0]
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "v3_mla_module.parquet")


def test_two_releases_of_one_engine_tell_what_unfused_norms_cost(tmp_path):
    """40, 60 and 100 us at 1, 64 and 1,024 tokens; on half the memory speed what grows beyond 64 tokens is twice."""
    two_releases(tmp_path)
    norms = unfused_norms(tmp_path)
    tokens = np.array([1.0, 64.0, 1024.0])
    heads = np.full(3, 16.0)
    assert norms.on(gpu("gb300_nvl72"), heads, tokens) == pytest.approx([40e-6, 60e-6, 100e-6])
    faster = gpu("gb300_nvl72").memory_bytes_per_s / gpu("b200_sxm").memory_bytes_per_s
    assert norms.on(gpu("b200_sxm"), heads, tokens)[2] == pytest.approx(60e-6 + 40e-6 * faster)
    assert norms.on(gpu("h200_sxm"), heads, tokens) == pytest.approx([40e-6, 60e-6, 60e-6])


def test_one_release_alone_tells_nothing(tmp_path):
    two_releases(tmp_path)
    path = tmp_path / "v3_mla_module.parquet"
    frame = pd.read_parquet(path)
    frame[frame.ver == "0.27.0"].to_parquet(path.with_name("v3_mla_module.parquet"))
    assert unfused_norms(tmp_path / ".") is None or unfused_norms(tmp_path / ".").seconds.size == 0


def test_the_list_keeps_other_gpus(tmp_path):
    path = tmp_path / LIST
    write_list(path, "b", "vllm", [])
    path.write_text(path.read_text() + "a,vllm,t,launches,1,0,2,x,y\nb,vllm,t,launches,1,0,2,x,y\n")
    write_list(path, "b", "vllm", [])
    assert [row["gpu"] for row in csv.DictReader(path.open())] == ["a"]


@cache
def listed():
    with (SHIPPED / LIST).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def cost_of(name):
    profile = load_profile(name)
    device = gpu(profile.gpu)
    return ProfileCost(profile, AnalyticCost(device, efficiency()), device)


@pytest.mark.parametrize("name", shipped_profiles())
def test_no_shipped_block_takes_far_longer_than_its_kernels_where_there_is_little_work(name):
    """Fused blocks in a graph take 0.7 to 1.3 times the sum of their kernels; slow kernels that stay are listed.

    Sixteen heads and more, one to sixteen tokens: where launches and unfused norms show most.
    """
    cost = cost_of(name)
    slow = {
        row["table"]
        for row in listed()
        if row["kind"] == "kernels" and f"{row['gpu']}/{row['engine']}" == name
    }
    for kernel in ("mla_decode_block", "dsa_decode_block", "mla_prefill_block", "dsa_prefill_block"):
        for table in cost.profile.tables(kernel):
            shape = table.shape
            tokens = shape["batch"] * shape.get("new", 1.0)
            few = (tokens <= 16) & (shape["heads"] >= 16) & (shape.get("cached", tokens) <= 2048)
            if kernel == "dsa_decode_block":
                few &= shape["context"] <= 4096
            few &= np.cumsum(few) % 5 == 0
            if not few.any() or table.key.replace("prefill", "decode") in slow:
                continue
            rows = only(table, few)
            ratio = np.median(rows.seconds / kernel_seconds(cost, rows))
            assert 0.5 < ratio < 1.5, f"{table.key}: {ratio:.2f} times its kernels"


def test_what_was_changed_is_listed_and_never_called_measured():
    """vLLM's latent attention on GB200: 100 us at one sequence of 16 heads as it was timed, 54 on B200 with fused
    norms (aiconfigurator-core 0.12.0)."""
    keys = {(row["gpu"], row["engine"], row["table"]) for row in listed()}
    assert ("gb200_nvl72", "vllm", "mla_decode_block/fp8/kv_cache=fp8") in keys
    assert ("b200_sxm", "vllm", "mla_decode_block/fp8/kv_cache=fp8") not in keys
    cost = cost_of("gb200_nvl72/vllm")
    (table,) = (
        t for t in cost.profile.tables("mla_decode_block") if t.key == "mla_decode_block/fp8/kv_cache=fp8"
    )
    assert TAKEN_OUT in table.columns
    shape = {"heads": 16, "batch": 1, "context": 4096, "queries": 1}
    block = Operation(
        "x", "attention", "mla_decode_block", shape, "fp8", 0.0, 0.0, options={"kv_cache": "fp8"}
    )
    priced = cost.price(block)
    assert priced.seconds == pytest.approx(54e-6, rel=0.15)
    assert priced.priced_by == "fitted"
    assert "less launches and unfused norms" in priced.source
    assert cost.taken_out_s(block) == pytest.approx(40e-6, rel=0.1)


def test_rows_with_nothing_taken_out_stay_measured():
    columns = {"m": np.array([1.0, 2.0, 4.0]), "n": np.ones(3), "k": np.ones(3)}
    fit = Fit(Form(1e-6, 1.0, (1e12,), (1e12,)), "linear")
    table = Table("gemm", Variant("fp8", {}), "", "a rule", columns, np.array([10.0, 20.0, 40.0]) * US, fit)
    half = less(table, np.array([5.0, 0.0, 0.0]) * US)
    assert half.seconds == pytest.approx(np.array([5.0, 20.0, 40.0]) * US)
    assert less(table, np.zeros(3)) is table
    priced = PricedTable(half, Dims.of(model("deepseek-v3.2")))
    at = {"n": 1, "k": 1}
    assert [priced.seconds({"m": m, **at})[1] for m in (1, 1.5, 2, 3, 4)] == [
        "fitted",
        "fitted",
        "measured",
        "measured",
        "measured",
    ]
