"""Our Triton kernels equal the references, on the CPU through Triton's interpreter.

The interpreter narrows float32 to BF16 and FP8 wrongly (a mantissa that rounds up to a power of two loses the
carry), so products are compared in float32 outputs and quantisation on values that FP8 holds exactly. Rounding is
left to the tests on a GPU.
"""

# ruff: noqa: E402 (torch and triton are optional: without them the module is skipped first)

import inspect
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
triton = pytest.importorskip("triton", reason="needs triton: pip install 'tokenworks[kernels]'")

from triton.runtime import interpreter

from calibrate.cases import Case
from calibrate.grid import moved
from calibrate.kernels import triton_attention, triton_gemm, triton_index, triton_quantize, triton_routing
from calibrate.kernels.dsa import SPARSE_MLA_DECODE, SPARSE_MLA_PREFILL, sparse_attention
from calibrate.kernels.dsa_index import INDEX_LOGITS, INDEX_TOPK, index_scores, keys_of
from calibrate.kernels.formats import FP8, dequantize_groups, quantize_groups
from calibrate.kernels.gemm import GEMM, reference_gemm
from calibrate.kernels.mla import MLA_DECODE, reference_decode
from calibrate.kernels.moe import MOE, expert_of_rows, reference_moe
from calibrate.kernels.routing import MOE_FINALISE, MOE_GATE, MOE_PERMUTE, sort_rows
from sim.catalog import model
from sim.model import operations as ops

pytestmark = pytest.mark.skipif(
    not triton_gemm.INTERPRETED, reason="a GPU is present: the kernels are tested on it (test_gpu_kernels.py)"
)

BROKEN_PAIR = pytest.mark.skipif(
    "int(self.handle.data)" in inspect.getsource(interpreter)
    and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason=f"the interpreter of Triton {triton.__version__} turns arrays of one element into numbers, which numpy "
    f"{np.__version__} refuses: it needs numpy before 2.4, or a Triton whose interpreter squeezes them (3.9 does)",
)
pytestmark = [pytestmark, BROKEN_PAIR]

V3 = model("deepseek-v3")
FEW = replace(model("deepseek-v3.2"), index_topk=64)


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def nan(*shape):
    return torch.full(shape, float("nan"))


@pytest.mark.parametrize(
    ("heads", "batch", "context", "queries", "kv_cache"),
    [(16, 2, 300, 1, "bf16"), (8, 1, 600, 3, "bf16"), (128, 1, 64, 1, "bf16"), (16, 2, 100, 1, "fp8")],
)
def test_dense_decode(heads, batch, context, queries, kv_cache, cpu, generator):
    case = Case(ops.mla_decode(heads, batch, context, queries, 512, 64, 1152, kv_cache), V3)
    t = MLA_DECODE.make(case, cpu, generator)

    found = triton_attention.decode(
        t["q"].float(),
        t["cache"],
        t["pages"],
        t["lengths"],
        nan(batch, queries, heads, 512),
        case.softmax_scale,
    )

    rows = torch.arange(batch * queries)
    assert relative(found.flatten(0, 1), reference_decode(case, t, rows)) < 1e-5


@pytest.mark.parametrize("kv_cache", ["fp8", "bf16"])
@pytest.mark.parametrize(
    ("family", "phase", "new", "context"),
    [(SPARSE_MLA_DECODE, "decode", 1, 200), (SPARSE_MLA_PREFILL, "prefill", 3, 40)],
)
def test_sparse_attention(kv_cache, family, phase, new, context, cpu, generator):
    case = Case(ops.sparse_mla(phase, 16, 2, new, context - new, 64, 512, 64, 656, kv_cache), FEW)
    t = family.make(case, cpu, generator)
    scale = case.softmax_scale

    found = triton_attention.sparse(t["q"].float(), t["cache"], t["indices"], nan(2, new, 16, 512), scale)

    q = t["q"].double().flatten(0, 1)
    expected = sparse_attention(q, t["cache"], t["indices"].flatten(0, 1), scale)
    assert relative(found.flatten(0, 1), expected) < 1e-5


@pytest.mark.parametrize(
    ("batch", "new", "context"), [(2, 1, 130), (1, 2, 64), (2, 5, 70), (1, 20, 600), (1, 1, 700)]
)
def test_index_logits(batch, new, context, cpu, generator):
    case = Case(ops.index_logits(batch, new, context - new, 64, 128, 132), FEW)
    t = INDEX_LOGITS.make(case, cpu, generator)
    backend = next(b for b in INDEX_LOGITS.backends if b.name == "triton")

    found = backend.build(case, t)().view(batch, new, context)

    for sequence in range(batch):
        values, factors = keys_of(t, sequence, context)
        keys = values.double() * factors.double()[:, None]
        expected = index_scores(t["q"][sequence].double(), t["weights"][sequence].double(), keys)
        for query in range(new):
            visible = context - new + query + 1
            assert relative(found[sequence, query, :visible], expected[query, :visible]) < 1e-5
            assert found[sequence, query, visible:].isnan().all()  # keys to come are not touched


@pytest.mark.parametrize("turn", [1, 2])
def test_the_other_configurations_agree_too(turn, cpu, generator, monkeypatch):
    """On a CPU the first configuration runs; here each of the others does."""

    def chosen(key, configurations, run, device):
        run(**configurations[turn])

    for module in (triton_attention, triton_gemm, triton_index, triton_quantize):
        monkeypatch.setattr(module, "launch", chosen)
    cases = [
        (MLA_DECODE, ops.mla_decode(16, 1, 100, 2, 512, 64, 1152, "bf16")),
        (SPARSE_MLA_DECODE, ops.sparse_mla("decode", 16, 1, 1, 99, 64, 512, 64, 656, "fp8")),
        (INDEX_LOGITS, ops.index_logits(1, 2, 258, 64, 128, 132)),
        (INDEX_LOGITS, ops.index_logits(1, 20, 130, 64, 128, 132)),
        (INDEX_TOPK, ops.index_topk(1, 2, 500, 64)),
        (GEMM, ops.gemm("", "dense", 5, 200, 256, "fp8")),
        (GEMM, ops.gemm("", "dense", 150, 200, 256, "fp8")),
    ]
    for family, operation in cases:
        case = Case(operation, FEW)
        tensors = family.make(case, cpu, generator)
        backend = next(b for b in family.backends if b.name == "triton")
        assert family.error(case, tensors, backend.build(case, tensors)()) < 2e-4, operation.name


@pytest.mark.parametrize("distribution", ["normal", "concentrated", "ties"])
@pytest.mark.parametrize(("new", "context"), [(1, 5000), (3, 100), (2, 64), (1, 40)])
def test_radix_selection(distribution, new, context, cpu, generator):
    """Longer and shorter rows than the 64 keys that are kept; many equal scores; negative ones; a narrow band."""
    case = Case(ops.index_topk(2, new, context - new, 64), FEW)
    case = replace(case, operation=replace(case.operation, options={"distribution": distribution}))
    tensors = INDEX_TOPK.make(case, cpu, generator)
    if distribution == "ties":
        tensors = {**tensors, "scores": tensors["scores"].mul(2).round()}
    backend = next(b for b in INDEX_TOPK.backends if b.name == "triton")

    kept = backend.build(case, tensors)()

    assert INDEX_TOPK.error(case, tensors, kept) == 0
    for row, length in zip(kept.tolist(), tensors["lengths"].tolist(), strict=True):
        found = [index for index in row if index >= 0]
        assert len(found) == len(set(found)) == min(64, length)
        assert max(found) < length


@pytest.mark.parametrize(("m", "n", "k"), [(1, 128, 128), (70, 200, 256), (16, 576, 384), (300, 136, 256)])
def test_fp8_block_gemm(m, n, k, cpu, generator):
    case = Case(ops.gemm("", "dense", m, n, k, "fp8"), V3)
    t = GEMM.make(case, cpu, generator)

    found = triton_gemm.block_gemm(t["x"], t["x_scales"], t["w"], t["w_scales"], nan(m, n))

    assert relative(found, reference_gemm(t, torch.arange(m))) < 1e-5


def test_quantisation(generator):
    exact = torch.randn(6, 3, 128, generator=generator).clamp(-4, 4).mul(64).to(FP8)
    exact[..., 0] = 448.0  # so that the scale of each group is its power of two
    powers = 2.0 ** torch.arange(-9, 9).view(6, 3)
    x = (exact.float() * powers[..., None]).flatten(1).bfloat16()

    values, scales = triton_quantize.quantize_rows(x, torch.empty(6, 384, dtype=FP8), nan(6, 3))

    assert torch.equal(scales, powers)
    assert torch.equal(values.float(), exact.float().flatten(1))
    assert torch.equal(scales, quantize_groups(x)[1])


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_grouped_gemm(dtype, cpu, generator):
    case = Case(ops.routed_experts(75, 5, 4, 256, 128, dtype), V3)
    t = MOE.make(case, cpu, generator)
    cut = triton_gemm.tiles(t["counts"])

    found = triton_gemm.grouped_gemm(
        t["x"], t.get("x_scales"), t["up"], t.get("up_scales"), cut, nan(75, 256)
    )

    experts = expert_of_rows(t["counts"])
    for expert in experts.unique().tolist():
        weight = {"w": t["up"][expert]} | ({"w_scales": t["up_scales"][expert]} if dtype == "fp8" else {})
        mine = torch.nonzero(experts == expert).flatten()
        inputs = {name: t[name] for name in ("x", "x_scales") if name in t}
        assert relative(found[mine], reference_gemm({**inputs, **weight}, mine)) < 1e-5


def test_tiles_cover_every_row_once_and_never_cross_an_expert():
    counts = torch.tensor([3, 0, 70, 64, 1])

    group, start, end, rows = triton_gemm.tiles(counts)

    covered = [
        row for first, last in zip(start.tolist(), end.tolist(), strict=True) for row in range(first, last)
    ]
    assert covered == list(range(138))
    owner = expert_of_rows(counts)
    for expert, first, last in zip(group.tolist(), start.tolist(), end.tolist(), strict=True):
        assert last - first <= rows
        assert (owner[first:last] == expert).all()


def test_gated_activation(generator):
    x = torch.randn(4, 512, generator=generator).bfloat16()
    gate, up = x.double().chunk(2, -1)
    expected = gate / (1 + torch.exp(-gate)) * up

    found, _ = triton_quantize.gated_activation(x, nan(4, 256), None)
    values, scales = triton_quantize.gated_activation(x, torch.empty(4, 256, dtype=FP8), nan(4, 2))

    assert relative(found, expected) < 1e-6
    assert relative(dequantize_groups(values, scales), expected) < 0.06


def test_a_masked_activation_skips_the_rows_that_are_not_there(generator):
    x = torch.randn(2, 3, 256, generator=generator).bfloat16()

    found, _ = triton_quantize.gated_activation(
        x, nan(2, 3, 128), None, torch.tensor([3, 1], dtype=torch.int32)
    )

    assert found[0].isfinite().all()
    assert found[1, 0].isfinite().all()
    assert found[1, 1:].isnan().all()


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.02), ("fp8", 0.08)])
def test_the_whole_expert_ffn(dtype, bound, cpu, generator):
    case = Case(ops.routed_experts(30, 4, 3, 256, 128, dtype), V3)
    t = MOE.make(case, cpu, generator)
    backend = next(b for b in MOE.backends if b.name == "triton")

    found = backend.build(case, t)()

    assert relative(found, reference_moe(t, torch.arange(30))) < bound


@pytest.mark.parametrize("groups", [8, 1])
def test_gate(groups, cpu, generator):
    shape = {"tokens": 5, "experts": 256, "top_k": 8}
    case = Case(moved("moe_gate", shape, 1), replace(V3, n_group=groups, topk_group=groups // 2))
    tensors = MOE_GATE.make(case, cpu, generator)
    chosen, weights = torch.empty(5, 8, dtype=torch.int32), nan(5, 8)
    kept = max(1, groups // 2)
    found = triton_routing.select(tensors["logits"], tensors["bias"], groups, kept, chosen, weights)
    assert MOE_GATE.error(case, tensors, found) < 1e-6


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (700, 6, 4)])
def test_rows_to_their_experts_and_back(tokens, experts, top_k, cpu, generator):
    """A row's place is told, so that the sum finds it again: with weights 1 / k each token comes back itself."""
    shape = {"tokens": tokens, "experts": experts, "top_k": top_k, "hidden": 32}
    case = Case(moved("moe_permute", shape, 1), V3)
    tensors = MOE_PERMUTE.make(case, cpu, generator)
    x, chosen = tensors["x"].float(), tensors["chosen"].int()
    counts, rows = torch.empty(experts, dtype=torch.int32), nan(tokens * top_k, 32)
    positions = torch.full((tokens, top_k), -1, dtype=torch.int32)
    triton_routing.permute(x, chosen, counts, positions, rows)
    expected, expected_counts = sort_rows(x, tensors["chosen"], experts)
    assert torch.equal(rows, expected)
    assert torch.equal(counts.long(), expected_counts)
    back = triton_routing.finalise(rows, positions, torch.full((tokens, top_k), 1 / top_k), nan(tokens, 32))
    assert torch.allclose(back, x, rtol=1e-6, atol=1e-6)


def test_weighted_sum(cpu, generator):
    case = Case(moved("moe_finalise", {"tokens": 9, "top_k": 8, "hidden": 48}, 1), V3)
    tensors = MOE_FINALISE.make(case, cpu, generator)
    rows = tensors["rows"].float()
    found = triton_routing.finalise(rows, tensors["positions"], tensors["weights"], nan(9, 48))
    assert MOE_FINALISE.error(case, {**tensors, "rows": rows}, found) < 1e-12
