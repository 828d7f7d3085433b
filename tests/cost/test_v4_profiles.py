"""DeepSeek-V4 by the profiles of its own kernels, and what stands in where it has none."""

import itertools

import pytest

from sim import catalog
from sim.catalog import efficiency, gpu
from sim.catalog.profiles import models_of_their_own, shipped_profiles
from sim.cost.latency import AnalyticCost, Latency
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile
from sim.kernels.formats import weight_bytes
from sim.model.attention import Batch, attention_operations
from sim.model.layout import Layout
from sim.model.operations import hyper_connections, mega_moe_experts, routed_experts

FLASH, PRO = "deepseek-v4-flash", "deepseek-v4-pro"


def cost(device: str, engine: str, model: str = "") -> ProfileCost:
    priced = gpu(device)
    profile = load_profile(f"{priced.nearest_measured}/{engine}")
    return ProfileCost(profile, AnalyticCost(priced, efficiency()), priced, model)


def block(name: str, kind: str, batch: Batch) -> object:
    model = catalog.model(name)
    layout = Layout(model, gpus=1, tp=1, ep=1, gpus_per_node=8)
    kernel = f"{kind}_{batch.phase}_block"
    return next(o for o in attention_operations(layout, model.attention, batch) if o.kernel == kernel)


def test_v4_has_profiles_of_every_measured_gpu_and_engine() -> None:
    assert models_of_their_own() == {FLASH, PRO}
    for name in shipped_profiles():
        for model in (FLASH, PRO):
            own = load_profile(f"{name}/{model}")
            assert own.dims.hidden == catalog.model(model).hidden
            assert {"moe", "mhc_pre", "mhc_post"} <= set(own.kernels)
            assert all(own.fits[table.key] for kernel in own.kernels for table in own.tables(kernel))


@pytest.mark.parametrize(("kind", "ms"), [("csa", 0.1914 - (0.0655 - 0.0031)), ("hca", 0.0843)])
def test_a_measured_block_is_priced_as_it_was_measured(kind: str, ms: float) -> None:
    """aiconfigurator-core 0.12.0, dsv4_*_generation_module: B200, SGLang 0.5.14, V4-Flash, 64 heads, 64 sequences that
    have 4,096 tokens. dsv4_csa_topk_calib: the selection takes 65.5 us of CSA's on the equal scores that were timed,
    and 3.1 on others."""
    found = cost("b200", "sglang", FLASH).price(block(FLASH, kind, Batch("decode", 64, 1, 4095)))  # type: ignore[arg-type]
    assert found.seconds == pytest.approx(ms * 1e-3, rel=0.005)
    assert found.source.startswith(f"b200_sxm/sglang/{FLASH}: {kind}_decode_block")


def test_both_sites_of_hyper_connections_were_timed_together() -> None:
    """aiconfigurator-core 0.12.0, mhc_module: H200, SGLang, hidden 7,168, 64 tokens: 20.7 and 8.6 us."""
    pre, post = (cost("h200", "sglang", PRO).price(o) for o in hyper_connections(64, 4, 7168))
    assert (pre.seconds, post.seconds) == pytest.approx((20.7e-6, 8.6e-6), rel=0.01)


def test_another_model_s_tables_price_no_block() -> None:
    """V3.2's profile knows no CSA, and V4-Flash's blocks say nothing of V4-Pro."""
    decode = Batch("decode", 64, 1, 4095)
    assert not cost("b200", "sglang").knows(block(FLASH, "csa", decode))  # type: ignore[arg-type]
    assert not cost("b200", "sglang", FLASH).knows(block(PRO, "csa", decode))  # type: ignore[arg-type]


def test_what_v4_shares_with_v3_is_priced_alike() -> None:
    v3 = routed_experts(512, 32, 32, 7168, 2048, "fp8")
    assert cost("h200", "sglang").price(v3) == cost("h200", "sglang", "deepseek-v3.2").price(v3)


EXPERTS = (192.0, 32.0, 32.0, 4096, 2048.0)


def experts(device: str, engine: str, dtype: str) -> Latency:
    return cost(device, engine, FLASH).price(routed_experts(*EXPERTS, dtype))


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "vllm"])
def test_mxfp4_experts_are_measured_on_blackwell(engine: str) -> None:
    found = experts("b200", engine, "mxfp4")
    assert found.priced_by in ("measured", "fitted")
    assert found.source.startswith(f"b200_sxm/{engine}/{FLASH}: trtllm_gen")


def test_the_model_s_own_table_of_another_engine_comes_before_v3_s() -> None:
    """SGLang's NVFP4 experts were measured in V3's widths only, vLLM's, the same kernels, in V4's."""
    found = experts("b200", "sglang", "nvfp4")
    assert found.source.startswith(f"b200_sxm/vllm/{FLASH}: trtllm_gen")
    assert found.source.endswith("standing in for sglang")


@pytest.mark.parametrize("device", ["h200", "h20"])
def test_mxfp4_experts_on_hopper_reach_fp8_s_share_of_the_bandwidth(device: str) -> None:
    """No table: Marlin reads half of the bytes and multiplies in BF16. 32 experts of 3 x 4,096 x 2,048 elements, 6
    rows each, are bound by their weights on H200."""
    fp4, fp8 = experts(device, "sglang", "mxfp4"), experts(device, "sglang", "fp8")
    assert fp4.priced_by == "scaled"
    assert "scaled to mxfp4" in fp4.source
    read = weight_bytes(32 * 3 * 4096 * 2048, "mxfp4") / gpu(device).memory_bytes_per_s
    assert read < fp4.seconds
    if device == "h200":
        assert 0.5 < fp4.seconds / fp8.seconds < 0.85


def fused(device: str, tokens: int) -> Latency:
    rows = 6.0 * tokens
    return cost(device, "sglang", PRO).price(
        mega_moe_experts(rows, 48, min(rows, 48.0), 7168, 3072, "mxfp4", ep=8)
    )


@pytest.mark.parametrize(("tokens", "us"), [(512, 369.6), (8192, 2818.5)])
@pytest.mark.parametrize("device", ["gb200", "gb300"])
def test_experts_with_the_exchange_inside_take_as_long_as_published(
    device: str, tokens: int, us: float
) -> None:
    """DeepGEMM, pull requests 316 and 323: V4-Pro, EP8, the tokens of one B200-class GPU. The tables are of
    SGLang's module with an earlier kernel."""
    found = fused(device, tokens)
    assert found.priced_by in ("measured", "fitted")
    assert found.seconds == pytest.approx(us * 1e-6, rel=0.15)


@pytest.mark.parametrize("device", ["b200", "b300"])
def test_a_gpu_stands_in_for_its_sister(device: str) -> None:
    """The same chip, at 4.5 and 5 PFLOP/s of FP8 on B200 and GB200."""
    found, other = fused(device, 512), fused(f"g{device}", 512)
    assert found.priced_by == "scaled"
    assert found.source.endswith(f"scaled from {gpu(f'g{device}').name}")
    assert 1.0 <= found.seconds / other.seconds < 1.15


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "vllm"])
def test_no_context_takes_longer_than_twice_as_much_context(engine: str) -> None:
    """The tables were timed on empty caches, whose equal scores are the selection's slowest case: 232 us with
    TensorRT-LLM at 8,192 tokens, and 114 at 12,288 (B200, V4-Pro, 16 heads). No service has them."""
    found = [
        cost("b200", engine, PRO).price(block(PRO, "csa", Batch("decode", 8, 1, context))).seconds  # type: ignore[arg-type]
        for context in (4096, 6144, 8192, 12288, 16384)
    ]
    for shorter, longer in itertools.pairwise(found):
        assert shorter < 1.05 * longer
