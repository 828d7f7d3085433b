"""Adapters to attention and indexer kernels against stand-ins for the packages, release by release."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.kernels.dsa import SPARSE_MLA_PREFILL, sparse_attention
from calibrate.kernels.dsa_index import INDEX_LOGITS, index_scores
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.formats import FP8
from calibrate.kernels.mla import MLA_DECODE
from calibrate.trial import Point, tolerance
from sim.catalog import model
from sim.model import operations as ops

V32 = replace(model("deepseek-v3.2"), index_topk=64)


def paged(q, cache, weights, lengths, pages, schedule, width):
    (batch, new, _, _), rows = q.shape, []
    assert new in (1, 2)
    assert lengths.shape[0] == pages.shape[0] == batch
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
@pytest.mark.parametrize("new", [1, 2, 3, 4])
def test_paged_logits_of_three_releases(release, new, gpu, install, backend, generator):
    """2.1.1 takes the lengths of sequences, 2.6.1 those of queries; SGLang's 0.2.5 has other names and no
    `clean_logits`. All take one or two queries of a sequence; more come in pairs, or one by one where they are odd."""

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
def test_prefill_logits_are_not_cleaned(release, batch, gpu, install, backend, generator):
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
def test_sparse_prefill_pads_heads_and_takes_the_legacy_path(
    heads, taken, legacy, gpu, install, backend, generator
):
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

    assert seen[0] == taken[gpu.capability[0] == 10]
    assert SPARSE_MLA_PREFILL.error(case, tensors, output) < 2e-5


@pytest.mark.parametrize("release", ["2025", "2026"])
@pytest.mark.parametrize(("heads", "taken"), [(16, 64), (64, 64), (128, 128)])
def test_sparse_decode_pads_heads_whichever_way_the_schedule_is_made(
    release, heads, taken, gpu, install, backend, generator
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


def test_tensorrts_fp8_decode_rounds_queries_and_weights_and_is_accepted(install, backend, cpu, generator):
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
    tensors = MLA_DECODE.make(case, cpu, generator)
    point = Point(case, backend("mla_decode", "flashinfer_trtllm", case))

    deviation = MLA_DECODE.error(case, tensors, point.backend.build(case, tensors)())

    assert MLA_DECODE.tolerance < deviation < tolerance(point)
    assert torch.equal(tensors["q"].to(FP8).to(torch.bfloat16), tensors["q"])
    exact = replace(case, operation=ops.mla_decode(16, 2, 3000, 1, 512, 64, 1152, "bf16"))
    assert tolerance(Point(exact, point.backend)) == MLA_DECODE.tolerance
