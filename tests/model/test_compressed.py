"""DeepSeek-V4: windows, compressed entries and their indexer, hyper-connections, MXFP4 experts.

By hand, with the widths of the two config.json (V4-Flash, V4-Pro: hidden d 4,096 / 7,168, heads H 64 / 128, query
latent q 1,024 / 1,536, 8 / 16 groups of output, each to 1,024; layers 43 / 61, of them CSA 21 / 30 and HCA 20 / 31):

- attention  d q + q H 512 + d 512 + H 512 x 1,024 + groups 1,024 d
- compressor CSA 2 d 1,024 + 4 x 1,024, HCA 2 d 512 + 128 x 512
- indexer    q 64 128 + d 64 + 2 d 256 + 4 x 256
- hyper-connections 2 (24 x 4 d + 27) in FP32; experts 3 d x 2,048 / 3,072, of 256 / 384 six and a shared one
- cache of a token: CSA (584 + 132) / 4 B (68 with MXFP4 index keys), HCA 584 / 128
- of a request: 128 x 584 B of window in every layer; state of CSA 8 x 2 x 1,024 x 4 + 8 x 2 x 256 x 4 = 81,920 B, of
  HCA 128 x 2 x 512 x 4 = 524,288 B

Totals as the report (arXiv 2606.19348) rounds them: 284 B / 13 B and 1.6 T / 49 B. The checkpoint of V4-Pro takes
865 GB (vllm-project/recipes, models/deepseek-ai/DeepSeek-V4-Pro.yaml).
"""

import pytest

from sim import catalog
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Variant
from sim.model import architecture as arch
from sim.model.attention import Batch, attention_operations, chooses_keys, kinds, only_latents
from sim.model.layers import token_operations
from sim.model.layout import MEGA_MOE, ExpertRows, Layout

FLASH, PRO = "deepseek-v4-flash", "deepseek-v4-pro"
LAYERS = {FLASH: {"csa": 21, "hca": 20, "swa": 2}, PRO: {"csa": 30, "hca": 31}}


def layout(name: str, **changed: object) -> Layout:
    shape = {"gpus": 1, "tp": 1, "ep": 1, "gpus_per_node": 8, "weights": "mxfp4"} | changed
    return Layout(catalog.model(name), **shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "attention", "total", "active"),
    [(FLASH, 106_954_752, 284.332e9, 13.270e9), (PRO, 299_892_736, 1572.996e9, 48.851e9)],
)
def test_parameters(name: str, attention: int, total: float, active: float) -> None:
    model = catalog.model(name)
    groups = {kind.name: (kind, layers) for kind, layers in kinds(model)}
    assert {kind: layers for kind, (_, layers) in groups.items()} == LAYERS[name]
    d, heads, q = model.hidden, model.heads, model.q_lora_rank
    by_hand = d * q + q * heads * 512 + d * 512 + heads * 512 * 1024 + model.o_groups * 1024 * d
    assert by_hand == attention
    parts = arch.parameters(model)
    assert parts["attention"] == model.layers * attention
    csa, hca = LAYERS[name]["csa"], LAYERS[name]["hca"]
    assert parts["indexer"] == csa * q * 64 * 128
    compressors = csa * (2 * d * 1024 + 4 * 1024 + d * 64 + 2 * d * 256 + 4 * 256) + hca * (
        2 * d * 512 + 128 * 512
    )
    assert parts["compressor"] == compressors
    assert parts["hyper_connections"] == model.layers * 2 * (24 * 4 * d + 27)
    assert arch.total_parameters(model) == pytest.approx(total, abs=5e5)
    assert arch.active_parameters(model) == pytest.approx(active, abs=5e5)


@pytest.mark.parametrize(("name", "main_gb", "mtp_gb"), [(FLASH, 156.0, 3.6), (PRO, 850.7, 13.96)])
def test_checkpoint(name: str, main_gb: float, mtp_gb: float) -> None:
    sizes = [
        sum(arch.weight_bytes_per_gpu(catalog.model(name), gpus=1, weights="mxfp4", mtp=mtp).values()) / 1e9
        for mtp in (False, True)
    ]
    assert sizes[0] == pytest.approx(main_gb, abs=0.05)
    assert sizes[1] - sizes[0] == pytest.approx(mtp_gb, abs=0.05)
    if name == PRO:
        assert sizes[1] == pytest.approx(865, abs=0.5)


@pytest.mark.parametrize(
    ("name", "fp8", "fp4", "window", "state"),
    [(FLASH, 3850.25, 3514.25, 3_214_336, 12_206_080), (PRO, 5511.4375, 5031.4375, 4_559_872, 18_710_528)],
)
def test_cache(name: str, fp8: float, fp4: float, window: int, state: int) -> None:
    model = catalog.model(name)
    assert arch.cache_bytes_per_token(model, "fp8") == fp8
    assert arch.cache_bytes_per_token(model, "fp8_fp4") == fp4
    assert arch.cache_bytes_per_request(model, "fp8") == window + state
    assert arch.cache_bytes(model, "fp8", 9216) == pytest.approx(9216 * fp8 + window + state)
    assert arch.cache_bytes(model, "fp8", 100) == pytest.approx(100 * fp8 + window * 100 / 128 + state)
    assert arch.cache_bytes(model, "fp8", 0) == 0
    # The MTP module has a window alone, and no state.
    assert arch.cache_bytes_per_token(model, "fp8", mtp=True) == fp8
    assert arch.cache_bytes_per_request(model, "fp8", mtp=True) == window + state + 128 * 584
    # TP shards neither.
    assert arch.cache_bytes_per_token(model, "fp8", tp=8) == fp8
    assert only_latents(model)
    assert chooses_keys(model)


def decode_gflop(name: str, context: int) -> float:
    at = layout(name)
    model = at.model
    experts = ExpertRows(model.top_k, model.n_routed, model.top_k, 0, 0)
    step = attention_operations(at, model.attention, Batch("decode", 1, 1, context - 1))
    return sum(o.flop * o.layers for o in step + token_operations(at, 1, experts, 1)) / 1e9


@pytest.mark.parametrize(
    ("context", "gflop"), [(4096, 108.6), (32768, 113.9), (131072, 132.2), (1048576, 303.2)]
)
def test_flop_of_a_decode_token_of_v4_pro(context: int, gflop: float) -> None:
    """2 x 48.85 B, and over L tokens 4 H 512 (128 + min(1,024, L / 4)) + 2 x 64 x 128 L / 4 in 30 layers and
    4 H 512 (128 + L / 128) in 31."""
    assert decode_gflop(PRO, context) == pytest.approx(gflop, abs=0.05)


def test_work_and_cache_at_a_million_tokens_against_v32() -> None:
    """Report, section 1: V4-Pro takes 27% of the FLOP and 10% of the cache of V3.2."""
    million = 1 << 20
    assert decode_gflop(PRO, million) / decode_gflop("deepseek-v3.2", million) == pytest.approx(
        0.27, abs=0.01
    )
    caches = [
        arch.cache_bytes(catalog.model(name), form, million)
        for name, form in ((PRO, "fp8_fp4"), ("deepseek-v3.2", "fp8"))
    ]
    assert caches[0] / caches[1] == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize("name", [FLASH, PRO])
@pytest.mark.parametrize(
    "batch", [Batch("decode", 3, 1, 5000), Batch("decode", 2, 4, 60), Batch("prefill", 2, 700, 90)]
)
def test_a_block_is_the_sum_of_what_its_family_counts(name: str, batch: Batch) -> None:
    at = layout(name, gpus=4, tp=4)
    for block in attention_operations(at, at.model.attention, batch):
        if block.kernel in FAMILIES:
            variant = Variant(block.dtype, block.options)
            dims = Dims.of(at.model)
            stages = FAMILIES[block.kernel].work(block.shape, variant, dims)
            assert sum(flop for flop, _ in stages) == pytest.approx(block.flop)
            assert {width: getattr(dims, width) for width in block.widths} == block.widths


def test_the_module_attends_to_its_window_alone() -> None:
    model = catalog.model(PRO)
    assert [(group.attention, group.layers) for group in model.layer_groups(mtp=True)] == [
        ("csa", 30), ("hca", 31), ("swa", 1),
    ]  # fmt: skip
    assert [(group.attention, group.layers) for group in catalog.model(FLASH).layer_groups(mtp=True)][-1] == (
        "swa",
        3,
    )
    assert model.only_layer().attention[0].attention == "swa"


def test_experts_with_the_exchange_inside_have_no_other() -> None:
    experts = ExpertRows(64, 48, 40, 5, 0)
    inside, beside = (
        {o.kernel for o in token_operations(layout(PRO, gpus=8, ep=8, moe_backend=name), 16, experts, 16)}
        for name in (MEGA_MOE, None)
    )
    assert beside - inside == {"moe", "dispatch", "combine"}
    assert inside - beside == {"mega_moe"}


def test_v41_flash_is_known_and_not_modelled() -> None:
    with pytest.raises(
        catalog.ConfigError, match=r"deepseek-v4\.1-flash is not modelled: its encoder and decoder"
    ):
        catalog.model("deepseek-v4.1-flash")
