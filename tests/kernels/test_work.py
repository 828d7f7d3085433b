"""FLOP and bytes of one shape of every family, by hand; what a model's operation says of it is the same.

Widths of DeepSeek-V3.2: hidden 7168, q_lora 1536, latent 512 + 64, heads 128 + 64 / 128 wide, 64 index heads of 128,
2,048 selected keys. An FP8 element has 1/32 byte of scale in an activation and 1/4096 in a weight.
"""

import pytest

from sim.catalog import model
from sim.kernels import FAMILIES
from sim.kernels.family import DEFAULTS, Dims, Variant
from sim.model import operations as ops
from sim.model.attention import Batch, attention_operations
from sim.model.exchanges import all_to_all, collective
from sim.model.layout import Layout
from sim.model.operations import Operation

V32 = model("deepseek-v3.2")
DIMS = Dims.of(V32)
QUERY = 128 * (2 * 512 + 64) * 2  # queries and outputs of one token in the latent space, BF16: 278,528


def work(operation: Operation, carrier: str) -> tuple[float, float]:
    """(FLOP, bytes by the carrier) of the family at an operation's shape."""
    family = FAMILIES[operation.kernel]
    shape = {**DEFAULTS, **operation.shape}
    stages = family.work(shape, Variant(operation.dtype, dict(operation.options)), DIMS)
    carriers = family.carried_by(len(stages))
    carried = [traffic for (_, traffic), by in zip(stages, carriers, strict=True) if by == carrier]
    return sum(flop for flop, _ in stages), sum(carried)


def block(phase: str, batch: int, new: int, cached: int, name: str = "deepseek-v3.2") -> Operation:
    """FP8 weights, BF16 cache, all heads; up to 2,048 tokens in the MHA form."""
    layout = Layout(
        model(name), gpus=1, tp=1, ep=1, gpus_per_node=8, kv_cache="bf16", dense_prefill_max_kv=2048
    )
    return attention_operations(layout, layout.model.attention, Batch(phase, batch, new, cached))[0]  # type: ignore[arg-type]


def quantised(rows: float, inputs: int) -> float:
    """BF16 inputs read, FP8 ones with scales written, and read again by the product."""
    return rows * inputs * (2 + 2 * 33 / 32)


# Matrices of a block on each of its tokens: q_a with kv_a, q_b, o_proj; then the indexer's q_b and key.
WEIGHTS = 7168 * 2112 + 1536 * 24_576 + 16_384 * 7168
INPUTS, OUTPUTS = 7168 + 1536 + 16_384, 2112 + 24_576 + 7168
INDEXER, INDEXER_INPUTS, INDEXER_OUTPUTS = 1536 * 8192 + 7168 * 128, 1536 + 7168, 8192 + 128
NORMS = 2 * 2112 * 2  # latents read and written, BF16
ABSORB = 2 * 128 * 128 * 512  # elements of W^UK and W^UV
FP8_WEIGHT = 4097 / 4096


def projected(tokens: int, indexer: bool) -> tuple[float, float]:
    """FLOP and bytes of a block's products on its tokens, without W^UK and W^UV."""
    weights, inputs, outputs, head = WEIGHTS, INPUTS, OUTPUTS, 0
    if indexer:
        weights, inputs, outputs = weights + INDEXER, inputs + INDEXER_INPUTS, outputs + INDEXER_OUTPUTS
        head = 7168 * 64  # the indexer's weights of its heads, a BF16 product
    moved = weights * FP8_WEIGHT + quantised(tokens, inputs) + tokens * (outputs * 2 + NORMS)
    moved += 2 * (head + tokens * (7168 + 64)) if indexer else 0
    return 2 * tokens * (weights + head), moved


def absorbed(tokens: int) -> tuple[float, float]:
    """FLOP and bytes of the two BMMs, in BF16."""
    return 2 * tokens * ABSORB, 2 * ABSORB + 2 * tokens * 128 * (128 + 512) * 2


def added(*pieces: tuple[float, float]) -> tuple[float, float]:
    return sum(flop for flop, _ in pieces), sum(moved for _, moved in pieces)


LOGITS = (2 * 64 * 128 * 4096, 4096 * 132 + 64 * (128 + 4) + 4096 * 4)  # one query before 4,096 keys
SELECTION = (0, 4096 * 4 + 2048 * 4)
PAIRS = 4096 * 4097 / 2  # of a prompt of 4,096 tokens
SPARSE_PAIRS = 2048 * 2049 / 2 + 2048 * 2048  # of it, when each query keeps 2,048 keys

BY_HAND = [
    # [2, 256] x [256, 128]: 512 + 16 of input with scales, 32,768 + 8 of weights, 512 of output
    (ops.gemm("x", "dense", 2, 128, 256, "fp8"), 2 * 2 * 128 * 256, 528 + 32_776 + 512),
    (ops.quantize("x", "dense", 2, 256), 0, 1024 + 528),
    (ops.elementwise("x", "other", 1000), 0, 1000),
    (ops.absorb_bmm("pre", 3, 128, 128, 512), 3 * ABSORB, ABSORB + 3 * 128 * 640 * 2),
    # 10 new tokens behind 20: 10 x 20 + 55 pairs of 81,920 FLOP; queries and outputs of 10, keys and values of 30
    (ops.mla_prefill(128, 1, 10, 20, 192, 128, "bf16"), 255 * 81_920, (10 + 30) * 128 * 320 * 2),
    (ops.mla_decode(128, 4, 1000, 2, 512, 64, 1152, "bf16"), 8000 * 278_528, 4000 * 1152 + 8 * QUERY),
    (ops.index_logits(1, 1, 4095, 64, 128, 132), *LOGITS),
    (ops.index_topk(1, 1, 4095, 2048), *SELECTION),
    (ops.sparse_mla("decode", 128, 1, 1, 4095, 2048, 512, 64, 656, "fp8"), 2048 * 278_528, 2048 * 656 + QUERY),
    (
        ops.sparse_mla("prefill", 128, 1, 4096, 0, 2048, 512, 64, 1152, "bf16"),
        SPARSE_PAIRS * 278_528,
        4096 * (1152 + QUERY),
    ),
    (ops.gqa("decode", 8, 2, 64, 1, 1, 99, 2), 4 * 8 * 64 * 100, 100 * 2 * 2 * 64 * 2 + 2 * 8 * 64 * 2),
    # 10 rows on 5 of 8 experts: gate, up and down of each; rows and activations in FP8, gate, up and result in BF16
    (
        ops.routed_experts(10, 8, 5, 7168, 2048, "fp8"),
        10 * 6 * 7168 * 2048,
        5 * 3 * 7168 * 2048 * FP8_WEIGHT + 10 * (9216 * 33 / 32 + (4096 + 7168) * 2),
    ),
    (block("decode", 1, 1, 4095, "deepseek-v3"), *added(
        projected(1, False), absorbed(1), (4096 * 278_528, 4096 * 1152 + QUERY))),
    (block("prefill", 1, 4096, 0, "deepseek-v3"), *added(
        projected(4096, False),
        (2 * 4096 * ABSORB, ABSORB * FP8_WEIGHT + quantised(4096, 512) + 4096 * 32_768 * 2),
        (PAIRS * 81_920, 2 * 4096 * 128 * 320 * 2))),
    (block("decode", 1, 1, 4095), *added(
        projected(1, True), absorbed(1), LOGITS, SELECTION, (2048 * 278_528, 2048 * 1152 + QUERY))),
    (block("prefill", 1, 4096, 0), *added(
        projected(4096, True),
        absorbed(4096),
        (2 * 64 * 128 * PAIRS, 4096 * (132 + 64 * 132) + 4 * PAIRS),
        (0, 4 * PAIRS + 4 * 4096 * 2048),
        (SPARSE_PAIRS * 278_528, 4096 * (1152 + QUERY)))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "flop", "moved"), BY_HAND, ids=[f"{o.kernel}-{i}" for i, (o, _, _) in enumerate(BY_HAND)]
)
def test_the_memory_s_work_by_hand(operation: Operation, flop: float, moved: float) -> None:
    assert (operation.flop, operation.bytes) == pytest.approx((flop, moved), rel=1e-12)
    family, variant = FAMILIES[operation.kernel], Variant(operation.dtype, dict(operation.options))
    counted = family.traffic({**DEFAULTS, **operation.shape}, variant, DIMS)
    assert counted == pytest.approx((flop, moved), rel=1e-12)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter"])
def test_a_ring_by_hand(kind: str) -> None:
    """Of 800 bytes on 8 GPUs each sends 700, and an all-reduce twice that."""
    sent = 1400 if kind == "all_reduce" else 700
    ring = collective(kind, "x", 800.0, 8)  # type: ignore[arg-type]
    assert (0, ring.bytes) == work(ring, "scale_up") == (0, sent)


@pytest.mark.parametrize(("kind", "wire"), [("dispatch", 7168 + 56 * 4), ("combine", 14_336)])
def test_an_exchange_by_hand(kind: str, wire: int) -> None:
    """100 tokens, 8 experts each, on 16 GPUs of 2 nodes. Low latency: half of the copies to the other node, 1/16 stay.
    Normal: one to each of 7 GPUs of the own node where it is touched, 1 - (15/16)^8, and one to the other node where
    that is, 1 - 1/2^8; of those that arrive as many are passed on to 7 GPUs again.
    """
    near = 7 * (1 - (15 / 16) ** 8)
    for mode, up, out, passed in (
        ("low_latency", 8 * (1 / 2 - 1 / 16), 8 / 2, 0),
        ("normal", near, 1 - 0.5**8, near),
    ):
        sent = up + out + passed
        operation = all_to_all(kind, 100, 16, 2, 7168, 8, mode, sent, out)  # type: ignore[arg-type]
        assert work(operation, "scale_up") == pytest.approx((0, 100 * up * wire))
        assert work(operation, "scale_out") == pytest.approx((0, 100 * out * wire))
        assert operation.bytes == pytest.approx(100 * sent * wire)
        assert operation.shape["remote_bytes"] == pytest.approx(100 * out * wire)
        variant = Variant(operation.dtype, dict(operation.options))
        counted = FAMILIES[kind].traffic({**DEFAULTS, **operation.shape}, variant, DIMS)
        assert counted == pytest.approx((0, operation.bytes))


def test_what_a_sparse_prompt_gathers_passes_the_l2() -> None:
    """Every query fetches its own 2,048 entries of 1,152 bytes; the memory gives each of the 4,096 up once."""
    alone = ops.sparse_mla("prefill", 128, 1, 4096, 0, 2048, 512, 64, 1152, "bf16")
    for operation in (alone, block("prefill", 1, 4096, 0)):
        assert work(operation, "cache")[1] == pytest.approx(SPARSE_PAIRS * 1152 + 4096 * QUERY)
