"""Adapters against stand-ins for the packages: what each release asks for, checked as its own sources check it."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import sys
from dataclasses import replace
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels import backend as backends
from calibrate.kernels import library
from calibrate.kernels.dsa import SPARSE_MLA_PREFILL, sparse_attention
from calibrate.kernels.dsa_index import INDEX_LOGITS, index_scores
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.formats import FP8, dequantize_blocks, dequantize_groups, unpack_exponents
from calibrate.kernels.library import Needs
from calibrate.kernels.mla import MLA_DECODE
from calibrate.measure import find_points
from calibrate.trial import Point, tolerance
from sim.catalog import model
from sim.model import operations as ops

V32 = replace(model("deepseek-v3.2"), index_topk=64)
H200 = Device("cuda", "H200", 1, 2**37, 2**26, (9, 0), 132)
B200 = replace(H200, name="B200", capability=(10, 0))


@pytest.fixture
def install(monkeypatch):
    """Stand in for a module; what was looked up before is forgotten, and again afterwards."""

    def add(name, **symbols):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            parent = ".".join(parts[:depth])
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        module = ModuleType(name)
        vars(module).update(symbols)
        monkeypatch.setitem(sys.modules, name, module)
        forget()

    def forget():
        library._locate.cache_clear()
        library._import.cache_clear()

    yield add
    monkeypatch.undo()
    forget()


@pytest.fixture(params=[H200, B200], ids=["hopper", "blackwell"])
def gpu(request, monkeypatch):
    """A CPU whose tensors pass for those of a GPU, as far as scales go."""
    blackwell = request.param.capability[0] == 10
    for name in ("backend", "gemm", "quantize", "moe_adapters", "dsa_adapters"):
        monkeypatch.setattr(f"calibrate.kernels.{name}.on_blackwell", lambda tensor: blackwell)
    return request.param


def backend(kernel, name, case):
    return next(
        b
        for b in FAMILIES[kernel].backends
        if b.name == name and case.operation.dtype in b.dtypes and not b.limits(case)
    )


def scales_of(given, rows, groups, weight, blackwell):
    """FP32 scales [.., rows, groups], checked as `check_sf_layout` does (DeepGEMM 2.6.1, `csrc/utils/layout.hpp`)."""
    aligned = -(-rows // 4) * 4  # TMA wants 16 bytes
    if not blackwell:
        assert given.dtype == torch.float32
        if weight:
            assert given.is_contiguous()
            return given.repeat_interleave(128, -2)[..., :rows, :]
        assert given.shape[-2:] == (rows, groups)
    else:
        assert given.dtype == torch.int32
        assert given.shape[-2:] == (rows, -(-groups // 4))
        assert given.dim() == 2 or given.stride(-3) == given.stride(-1) * given.shape[-1]
    assert given.stride(-2) == 1 or rows == 1
    assert given.stride(-1) == aligned
    return unpack_exponents(given, groups) if blackwell else given


def product(x, w, blackwell):
    groups = x[0].shape[-1] // 128
    a = dequantize_groups(x[0], scales_of(x[1], x[0].shape[-2], groups, False, blackwell))
    b = dequantize_groups(w[0], scales_of(w[1], w[0].shape[-2], groups, True, blackwell))
    return a @ b.transpose(-1, -2)


@pytest.mark.parametrize(("m", "n", "k"), [(5, 300, 640), (1, 128, 128), (64, 576, 512)])
def test_deep_gemm_gets_scales_in_the_layout_of_its_gpu(m, n, k, gpu, install, generator):
    blackwell = gpu is B200

    def fp8_gemm_nt(x, w, d, c=None, recipe=None, disable_ue8m0_cast=False):
        assert disable_ue8m0_cast is not blackwell
        d.copy_(product(x, w, blackwell))

    install("deep_gemm", fp8_gemm_nt=fp8_gemm_nt)
    case = Case(ops.gemm("", "dense", m, n, k, "fp8"), V32)
    tensors = FAMILIES["gemm"].make(case, gpu, generator)

    output = backend("gemm", "deep_gemm", case).build(case, tensors)()

    assert FAMILIES["gemm"].error(case, tensors, output) < 2e-5
    expected = (
        dequantize_groups(tensors["x"], tensors["x_scales"])
        @ dequantize_blocks(tensors["w"], tensors["w_scales"]).T
    )
    assert torch.allclose(output.float(), expected, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("name", ["deep_gemm", "deep_gemm_masked"])
def test_both_grouped_products_get_their_layouts_and_agree(name, gpu, install, generator):
    pytest.importorskip("triton", reason="needs triton: pip install 'tokenworks[kernels]'")
    from calibrate.kernels import triton_gemm  # noqa: PLC0415

    if not triton_gemm.INTERPRETED:
        pytest.skip("the activation runs in Triton's interpreter here")
    blackwell = gpu is B200

    def contiguous(x, w, d, groups, disable_ue8m0_cast=False):
        assert disable_ue8m0_cast is not blackwell
        every = product(x, w, blackwell)  # [experts, rows, n] by broadcasting
        rows = torch.arange(len(groups))
        d.copy_(every[groups.long().clamp(min=0), rows])

    def masked(x, w, d, filled, expected, disable_ue8m0_cast=False):
        assert expected >= 1
        d.copy_(torch.nan_to_num(product(x, w, blackwell)))

    install(
        "vllm.third_party.deep_gemm",
        m_grouped_fp8_gemm_nt_contiguous=contiguous,
        get_mk_alignment_for_contiguous_layout=lambda: 8,
        fp8_m_grouped_gemm_nt_masked=masked,  # the name before 2.1
    )
    case = Case(ops.routed_experts(20, 3, 2, 384, 384, "fp8"), V32)
    tensors = FAMILIES["moe"].make(case, gpu, generator)

    output = backend("moe", name, case).build(case, tensors)()()

    # The interpreter narrows to FP8 wrongly where a mantissa rounds up to the next power of two: 2e-3 of error.
    assert FAMILIES["moe"].error(case, tensors, output) < 5e-3


def paged(q, cache, weights, lengths, pages, schedule, width):
    (batch, new, _, _), rows = q.shape, []
    values = cache.squeeze(2).flatten(1)
    for sequence in range(batch):
        own = values[pages[sequence].long()]
        keys = own[:, : 64 * 128].contiguous().view(FP8).reshape(-1, 128).double()
        keys = keys * own[:, 64 * 128 :].contiguous().view(torch.float32).reshape(-1, 1).double()
        rows += [
            index_scores(q[sequence, i].double(), weights[sequence * new + i].double(), keys[:width])
            for i in range(new)
        ]
    return torch.stack(rows).float()


@pytest.mark.parametrize("release", ["2.1.1", "2.6.1", "sgl 0.2.5"])
@pytest.mark.parametrize("new", [1, 2])
def test_paged_logits_of_three_releases(release, new, gpu, install, generator):
    """2.1.1 takes the lengths of sequences, 2.6.1 those of queries; SGLang's 0.2.5 has other names and no
    `clean_logits`."""

    def metadata(context_lens, block_kv, num_sms):
        if context_lens.dim() != (1 if release == "2.1.1" else 2):
            raise RuntimeError("Assertion error")
        return torch.zeros(num_sms + 1, 2, dtype=torch.int32)

    def old(
        q, kv_cache, weights, context_lens, block_table, schedule_meta, max_context_len, clean_logits=False
    ):
        assert clean_logits is False
        return paged(q, kv_cache, weights, context_lens, block_table, schedule_meta, max_context_len)

    def fp8_fp4_paged_mqa_logits(q, kv, weights, lengths, table, schedule, width, indices=None):
        assert q[1] is None
        return paged(q[0], kv, weights, lengths, table, schedule, width)

    names = (
        {"fp8_fp4_paged_mqa_logits": fp8_fp4_paged_mqa_logits}
        if "sgl" in release
        else {"fp8_paged_mqa_logits": old}
    )
    install("deep_gemm", get_num_sms=lambda: 2, get_paged_mqa_logits_metadata=metadata, **names)
    case = Case(ops.index_logits(2, new, 130 - new, 64, 128, 132), V32)
    tensors = INDEX_LOGITS.make(case, gpu, generator)

    output = backend("index_logits", "deep_gemm", case).build(case, tensors)()

    assert INDEX_LOGITS.error(case, tensors, output) < 2e-5


@pytest.mark.parametrize("release", ["2.6.1", "sgl 0.2.5"])
@pytest.mark.parametrize("batch", [1, 2])
def test_prefill_logits_are_not_cleaned(release, batch, gpu, install, generator):
    def compute(q, kv, weights, starts, ends):
        keys = kv[0].double() * kv[1].double()[:, None]
        return index_scores(q.double(), weights.double(), keys).float(), starts, ends

    def fp8_mqa_logits(q, kv, weights, starts, ends, clean_logits=True, max_seqlen_k=0):
        assert clean_logits is False
        return compute(q, kv, weights, starts, ends)[0]

    def fp8_fp4_mqa_logits(q, kv, weights, starts, ends, max_seqlen_k, schedule_meta=None):
        logits, *_ = compute(q[0], kv, weights, starts, ends)
        rows = [row[start : start + max_seqlen_k] for row, start in zip(logits, starts.tolist(), strict=True)]
        return torch.stack(rows)

    made = (
        {"fp8_mqa_logits": fp8_mqa_logits}
        if release == "2.6.1"
        else {"fp8_fp4_mqa_logits": fp8_fp4_mqa_logits}
    )
    install("deep_gemm", **made)
    case = Case(ops.index_logits(batch, 9, 31, 64, 128, 132), V32)
    tensors = INDEX_LOGITS.make(case, gpu, generator)

    output = backend("index_logits", "deep_gemm", case).build(case, tensors)()

    assert INDEX_LOGITS.error(case, tensors, output) < 2e-5


@pytest.mark.parametrize(("heads", "taken"), [(16, (64, 128)), (64, (64, 128)), (128, (128, 128))])
@pytest.mark.parametrize("legacy", [True, False], ids=["sgl-flash-mla", "FlashMLA"])
def test_sparse_prefill_pads_heads_and_takes_the_legacy_path(heads, taken, legacy, gpu, install, generator):
    seen = []

    def attend(q, kv, indices, sm_scale, d_v):
        seen.append(q.shape[1])
        out = sparse_attention(q.float(), kv.squeeze(1), indices.squeeze(1), sm_scale)
        return out.bfloat16(), None, None

    def sgl(q, kv, indices, sm_scale, d_v=512, attn_sink=None, topk_length=None, use_legacy=False):
        assert use_legacy, "the current kernels take 512-wide heads only"
        return attend(q, kv, indices, sm_scale, d_v)

    install("flash_mla", flash_mla_sparse_fwd=sgl if legacy else attend)
    case = Case(ops.sparse_mla("prefill", heads, 1, 6, 200, 64, 512, 64, 1152, "bf16"), V32)
    tensors = SPARSE_MLA_PREFILL.make(case, gpu, generator)

    output = backend("sparse_mla_prefill", "flash_mla", case).build(case, tensors)()

    assert seen[0] == taken[gpu is B200]
    assert SPARSE_MLA_PREFILL.error(case, tensors, output) < 2e-5


@pytest.mark.parametrize("release", ["2025", "2026"])
@pytest.mark.parametrize(("heads", "taken"), [(16, 64), (64, 64), (128, 128)])
def test_sparse_decode_pads_heads_whichever_way_the_schedule_is_made(
    release, heads, taken, gpu, install, generator
):
    class Schedule:
        """Filled by the first call."""

    def metadata(cache_seqlens, num_q_tokens_per_head_k, num_heads_k, num_heads_q, is_fp8_kvcache, topk):
        assert (num_q_tokens_per_head_k, num_heads_k, num_heads_q, topk) == (2 * taken, 1, taken, 64)
        return (torch.zeros(2, 8), torch.zeros(4)) if release == "2025" else (Schedule(), None)

    def attend(q, cache, table, lengths, d_v, schedule, splits, softmax_scale, is_fp8_kvcache, indices):
        assert (splits is None) == isinstance(schedule, Schedule)
        assert q.shape[2] == taken
        flat = cache.view(-1, 656)
        out = [sparse_attention(a.float(), flat, i, softmax_scale) for a, i in zip(q, indices, strict=True)]
        return torch.stack(out).bfloat16(), None

    install(
        "vllm.third_party.flashmla.flash_mla_interface",
        flash_mla_with_kvcache=attend,
        get_mla_metadata=metadata,
    )
    case = Case(ops.sparse_mla("decode", heads, 3, 2, 200, 64, 512, 64, 656, "fp8"), V32)
    tensors = FAMILIES["sparse_mla_decode"].make(case, gpu, generator)

    output = backend("sparse_mla_decode", "flash_mla", case).build(case, tensors)()

    assert FAMILIES["sparse_mla_decode"].error(case, tensors, output) < 2e-5


def test_tensorrts_fp8_decode_rounds_queries_and_weights_and_is_accepted(install, generator):
    """The kernel computes in e4m3 throughout: queries as they come, attention weights of each key rounded."""

    def attend(query, kv_cache, block_tables, seq_lens, max_seq_len, bmm1_scale, bmm2_scale, **_):
        assert query.dtype == kv_cache.dtype == FP8
        assert block_tables.shape[1] % 2 == 0  # rows of the page table are multiples of 128 tokens
        rows = []
        for sequence, queries in enumerate(query):
            keys = kv_cache.squeeze(1)[block_tables[sequence].long()].flatten(0, 1)[:max_seq_len].float()
            scores = queries.float() @ keys.T * bmm1_scale
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            rounded = (weights * 256).to(FP8).float() / 256
            rows.append(rounded @ keys[:, :512] / weights.sum(-1, keepdim=True))
        return torch.stack(rows).bfloat16()

    install("flashinfer.mla", trtllm_batch_decode_with_kv_cache_mla=attend)
    case = Case(ops.mla_decode(16, 2, 3000, 1, 512, 64, 576, "fp8"), V32)
    tensors = MLA_DECODE.make(case, B200, generator)
    point = Point(case, backend("mla_decode", "flashinfer_trtllm", case))

    deviation = MLA_DECODE.error(case, tensors, point.backend.build(case, tensors)())

    assert MLA_DECODE.tolerance < deviation < tolerance(point)
    assert torch.equal(tensors["q"].to(FP8).to(torch.bfloat16), tensors["q"])
    exact = replace(case, operation=ops.mla_decode(16, 2, 3000, 1, 512, 64, 1152, "bf16"))
    assert tolerance(Point(exact, point.backend)) == MLA_DECODE.tolerance


def test_what_an_engine_image_vendors_is_found_and_what_a_release_dropped_is_named(install):
    needs = Needs(("deep_gemm", "vllm.third_party.deep_gemm"), ("fp8_gemm_nt", "new_name|old_name"))
    install("deep_gemm", fp8_gemm_nt=print)
    assert needs.missing == "deep_gemm has no new_name or old_name"
    install("vllm.third_party.deep_gemm", fp8_gemm_nt=len, old_name=abs)
    assert needs.missing is None
    assert needs.load() == (len, abs)  # both of one copy
    install("sgl_kernel", fast_topk_v2=print)
    case = Case(ops.index_topk(1, 1, 5000, 2048), V32)
    gate = Needs(("sgl_kernel",), ("moe_fused_gate",))
    assert gate.missing == "sgl_kernel has no moe_fused_gate"
    assert backend("index_topk", "sgl_kernel", case).refuses(case, H200) is None


def test_a_dropped_function_refuses_a_backend_once_and_no_point_is_planned_with_it(install):
    install("sgl_kernel", moe_fused_gate=print)
    cases = [Case(ops.index_topk(1, 1, context, 2048), V32) for context in (3000, 5000)]

    points, refusals = find_points(cases, H200)

    assert {point.backend.name for point in points} <= {"triton", "torch"}
    reasons = [r.reason for r in refusals if r.backend == "sgl_kernel"]
    assert reasons == ["sgl_kernel has no fast_topk_v2"]


def test_every_backend_that_is_not_torch_names_its_functions():
    for kernel, family in FAMILIES.items():
        for each in family.backends:
            own = each.name in ("torch", "cudnn")
            assert (each.needs is None) == own, (kernel, each.name)
            assert own or each.name == "triton" or each.needs.symbols, (kernel, each.name)
    assert backends.HOPPER == 9
