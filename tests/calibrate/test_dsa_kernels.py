"""DeepSeek Sparse Attention: indexer, selection, attention over what was selected."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.kernels.dsa import SPARSE_MLA_DECODE, SPARSE_MLA_PREFILL, entries_of, sparse_attention
from calibrate.kernels.dsa_index import INDEX_LOGITS, INDEX_TOPK, index_scores
from calibrate.kernels.formats import quantize_latent
from sim.catalog import model
from sim.model import operations as ops

V32 = model("deepseek-v3.2")
FEW = replace(V32, index_topk=64)
"""A model that keeps 64 keys, so that a test sees a selection."""


def dense(q, cache, scale):
    weights = torch.einsum("shd,ld->shl", q, cache).mul(scale).softmax(-1)
    return torch.einsum("shl,lc->shc", weights, cache[:, :512])


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("padding", [0, 100])
def test_sparse_attention_that_keeps_all_keys_is_dense(padding, generator):
    q = torch.randn(3, 8, 576, generator=generator, dtype=torch.float64)
    cache = torch.randn(50, 576, generator=generator)
    order = torch.stack([torch.randperm(50, generator=generator) for _ in range(3)])
    indices = torch.cat([order, torch.full((3, padding), -1)], -1)

    found = sparse_attention(q, cache, indices, 0.07)

    assert relative(found, dense(q, cache.double(), 0.07)) < 1e-12


def test_a_case_whose_context_fits_the_selection_is_dense(cpu, generator):
    case = Case(ops.sparse_mla("decode", 16, 1, 1, 40, 64, 512, 64, 656, "fp8"), FEW)
    tensors = SPARSE_MLA_DECODE.make(case, cpu, generator)
    kept = tensors["indices"][0, 0]

    found = sparse_attention(tensors["q"][0].double(), tensors["cache"], kept[None], case.softmax_scale)

    assert sorted(kept[kept >= 0].tolist()) == sorted(set(kept[kept >= 0].tolist()))
    assert (kept >= 0).sum() == 41
    entries = entries_of(tensors["cache"], kept[kept >= 0].sort().values).double()
    assert relative(found, dense(tensors["q"][0].double(), entries, case.softmax_scale)) < 1e-12


def test_packed_entries_are_what_was_packed(generator):
    cache = torch.randn(9, 576, generator=generator).bfloat16()

    found = entries_of(quantize_latent(cache), torch.tensor([4, 2]))

    assert torch.equal(found[:, 512:], cache[[4, 2], 512:].float())
    assert relative(found, cache[[4, 2]].float()) < 0.05


def test_index_scores_by_hand():
    q = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # one query, two heads
    weights = torch.tensor([[2.0, -1.0]])
    keys = torch.tensor([[3.0, 4.0], [-3.0, 5.0]])
    # key 0: 2 relu(3) - relu(4) = 2; key 1: 2 relu(-3) - relu(5) = -5
    assert index_scores(q, weights, keys).tolist() == [[2.0, -5.0]]


@pytest.mark.parametrize(("batch", "new", "context"), [(2, 1, 130), (1, 2, 64), (2, 12, 40)])
def test_torch_scores_as_the_reference(batch, new, context, cpu, generator):
    case = Case(ops.index_logits(batch, new, context - new, 64, 128, 132), V32)
    tensors = INDEX_LOGITS.make(case, cpu, generator)

    output = INDEX_LOGITS.backends[-1].build(case, tensors)()

    assert INDEX_LOGITS.error(case, tensors, output) < INDEX_LOGITS.tolerance
    assert INDEX_LOGITS.error(case, tensors, output * 1.01) > INDEX_LOGITS.tolerance


def test_the_selection_counts_what_is_missing_too_low_or_repeated(cpu, generator):
    case = Case(ops.index_topk(2, 1, 199, 64), FEW)
    tensors = INDEX_TOPK.make(case, cpu, generator)
    best = tensors["scores"].topk(64).indices

    assert INDEX_TOPK.error(case, tensors, best) == 0
    assert INDEX_TOPK.error(case, tensors, best.flip(1)) == 0
    worst = tensors["scores"].argmin(1, keepdim=True)
    wrong = torch.cat([best[:, :-1], worst], 1)
    assert INDEX_TOPK.error(case, tensors, wrong) == pytest.approx(1 / 64)
    repeated = torch.cat([best[:, :-1], best[:, :1]], 1)
    assert INDEX_TOPK.error(case, tensors, repeated) == pytest.approx(1 / 64)
    missing = torch.cat([best[:, :-1], torch.full((2, 1), -1)], 1)
    assert INDEX_TOPK.error(case, tensors, missing) == pytest.approx(1 / 64)


def test_queries_with_fewer_keys_than_the_selection_keep_them_all(cpu, generator):
    case = Case(ops.index_topk(1, 4, 10, 64), FEW)
    tensors = INDEX_TOPK.make(case, cpu, generator)

    output = INDEX_TOPK.backends[-1].build(case, tensors)()

    assert tensors["lengths"].tolist() == [11, 12, 13, 14]
    assert INDEX_TOPK.error(case, tensors, output) == 0


@pytest.mark.parametrize("kv_cache", ["fp8", "bf16"])
@pytest.mark.parametrize(
    ("family", "phase", "batch", "new", "context"),
    [(SPARSE_MLA_DECODE, "decode", 2, 1, 200), (SPARSE_MLA_PREFILL, "prefill", 1, 5, 100)],
)
def test_torch_attends_as_the_reference(kv_cache, family, phase, batch, new, context, cpu, generator):
    case = Case(ops.sparse_mla(phase, 16, batch, new, context - new, 64, 512, 64, 656, kv_cache), FEW)
    tensors = family.make(case, cpu, generator)

    output = family.backends[-1].build(case, tensors)()

    assert family.error(case, tensors, output) < family.tolerance


def test_no_query_keeps_a_key_that_it_may_not_see(cpu, generator):
    case = Case(ops.sparse_mla("prefill", 16, 2, 6, 90, 64, 512, 64, 656, "bf16"), FEW)
    tensors = SPARSE_MLA_PREFILL.make(case, cpu, generator)
    tensors = dict(tensors, cache=torch.zeros_like(tensors["cache"]))
    kept = tensors["indices"]

    assert ((kept >= 0).sum(-1) == 64).all()  # every query sees at least 91 keys and keeps 64
    pages = (kept.long() // 64).unique()
    assert len(pages) == 4  # 96 keys are two pages for each of two sequences
    for sequence in range(2):
        assert len((kept[sequence].long() // 64).unique()) == 2
