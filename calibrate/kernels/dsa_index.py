"""The lightning indexer of DeepSeek Sparse Attention: index logits and the selection of the best keys.

DeepSeek-V3.2 report, section 2: the indexer scores a query t against a key s with its own small heads,
    I_ts = sum_j w_tj ReLU(q_tj . k_s),
in FP8, keys with one scale each; the `index_topk` best keys of each query are kept.
"""

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.backend import (
    BLACKWELL,
    HOPPER,
    Backend,
    Call,
    Family,
    Tensors,
    difference,
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.dsa_adapters import (
    FLASHINFER_TOPK,
    LOGITS,
    PAGED_LOGITS,
    SGL_TOPK,
    VLLM_TOPK,
    deep_gemm_logits,
    deep_gemm_paged_logits,
    flashinfer_topk,
    sgl_topk,
    vllm_topk,
)
from calibrate.kernels.formats import FP8, PAGE_TOKENS, pack_index_keys, quantize_groups, unpack_index_keys
from calibrate.kernels.library import TRITON

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)

DECODE_QUERIES = 4
"""Queries per sequence up to which a step is decode and reads paged keys; more is prefill, over contiguous keys."""


def paged(case: Case) -> bool:
    """Whether a case reads its index keys from the paged cache."""
    return case.size("new") <= DECODE_QUERIES


def make_logits(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """FP8 queries q [b, s, heads, 128], their weights [b, s, heads], and keys with one scale each.

    Contiguous (prefill): keys [b, l, 128], factors [b, l]. Paged (decode): packed [blocks, 64, 132] and pages [b, n].
    """
    del device
    batch, new, context = case.size("batch"), case.size("new"), case.size("context")
    heads, width, where = case.model.index_heads, case.model.index_head_dim, generator.device
    q = randn(batch, new, heads, width, generator=generator).to(FP8)
    weights = torch.randn(batch, new, heads, generator=generator, device=where)
    if not paged(case):
        keys, factors = quantize_groups(randn(batch, context, width, generator=generator))
        return {"q": q, "weights": weights, "keys": keys, "factors": factors.squeeze(-1)}
    each = -(-context // PAGE_TOKENS)
    keys, factors = quantize_groups(randn(batch * each, PAGE_TOKENS, width, generator=generator))
    pages = torch.randperm(batch * each, generator=generator, device=where).int().view(batch, each)
    return {"q": q, "weights": weights, "packed": pack_index_keys(keys, factors.squeeze(-1)), "pages": pages}


def keys_of(tensors: Tensors, sequence: int, context: int) -> tuple[Tensor, Tensor]:
    """Index keys of one sequence in order: values e4m3 [context, 128] and their scales float32 [context]."""
    if "packed" not in tensors:
        return tensors["keys"][sequence], tensors["factors"][sequence]
    values, factors = unpack_index_keys(tensors["packed"][tensors["pages"][sequence].long()])
    return values.flatten(0, 1)[:context], factors.flatten()[:context]


def index_scores(q: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """sum_j w_j ReLU(q_j . k): q [.., heads, d], weights [.., heads], keys [l, d] -> [.., l]."""
    return torch.einsum("...hl,...h->...l", (q @ keys.transpose(-1, -2)).relu(), weights)


def logits_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled queries over the keys that each may see; the output is [b * s, >= l]."""
    new, context = case.size("new"), case.size("context")
    output = output.reshape(case.size("batch") * new, -1)
    found, expected = [], []
    for row in sample_rows(output.shape[0], output.device).tolist():
        sequence, query = divmod(row, new)
        visible = context - new + query + 1
        values, factors = keys_of(tensors, sequence, context)
        keys = (values.double() * factors.double().unsqueeze(-1))[:visible]
        found.append(output[row, :visible])
        expected.append(
            index_scores(
                tensors["q"][sequence, query].double(), tensors["weights"][sequence, query].double(), keys
            )
        )
    return difference(torch.cat(found), torch.cat(expected))


def _torch_logits(case: Case, tensors: Tensors) -> Call:
    """BF16 products of the FP8 values, which BF16 holds exactly; keys are gathered from their pages beforehand."""
    q, weights, context = tensors["q"].bfloat16(), tensors["weights"], case.size("context")
    batch, new, heads, width = q.shape
    gathered = [keys_of(tensors, sequence, context) for sequence in range(batch)]
    keys = torch.stack([values for values, _ in gathered]).bfloat16().transpose(1, 2)
    factors = torch.stack([scales for _, scales in gathered]).unsqueeze(1)
    query = q.view(batch, new * heads, width)

    def run() -> Tensor:
        scores = torch.bmm(query, keys).view(batch, new, heads, context)
        return torch.einsum("bshl,bsh->bsl", scores.relu().float(), weights) * factors

    return run


def _triton_logits(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_index import index_logits

    q, weights, context = tensors["q"], tensors["weights"], case.size("context")
    logits = poisoned(q.shape[0] * q.shape[1], context, dtype=torch.float32, device=q.device)
    if not paged(case):
        return lambda: index_logits(q, tensors["keys"], tensors["factors"], weights, None, context, logits)
    keys, factors = tensors["packed"].view(FP8), tensors["packed"].view(torch.float32)
    return lambda: index_logits(q, keys, factors, weights, tensors["pages"], context, logits)


def _contiguous_only(case: Case) -> str | None:
    return "reads contiguous keys (prefill)" if paged(case) else None


def _paged_only(case: Case) -> str | None:
    return None if paged(case) else "reads paged keys (decode)"


INDEX_LOGITS = Family(
    kernel="index_logits",
    make=make_logits,
    error=logits_error,
    tolerance=2e-5,
    backends=(
        Backend(
            "deep_gemm", deep_gemm_logits, LOGITS, capabilities=(HOPPER, BLACKWELL),
            limits=_contiguous_only,
        ),
        Backend(
            "deep_gemm", deep_gemm_paged_logits, PAGED_LOGITS, capabilities=(HOPPER, BLACKWELL),
            limits=_paged_only,
        ),
        Backend("triton", _triton_logits, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_logits, cpu=True),
    ),
)  # fmt: skip


CONCENTRATED_SPREAD = 1e-3
"""Relative spread of concentrated scores: they share sign, exponent and the leading bits that a radix selection
looks at first, its worst case."""


def make_topk(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """FP32 scores [b * s, l], -inf beyond the keys that a query may see, and how many those are, int32 [b * s].

    Option `distribution`: normal scores, or `concentrated` ones in a narrow band.
    """
    del device
    batch, new, context = case.size("batch"), case.size("new"), case.size("context")
    scores = torch.randn(batch * new, context, generator=generator, device=generator.device)
    if case.operation.options.get("distribution") == "concentrated":
        scores = 1 + CONCENTRATED_SPREAD * scores
    lengths = torch.arange(context - new + 1, context + 1, dtype=torch.int32, device=scores.device).repeat(
        batch
    )
    position = torch.arange(context, device=scores.device)
    return {"scores": scores.masked_fill_(position >= lengths[:, None], float("-inf")), "lengths": lengths}


def topk_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Share of the kept keys of sampled queries that are wrong: below the k-th best score, repeated or missing.

    Ties may be broken either way. Entries outside a query's keys (-1, or masked ones) do not count as kept.
    """
    wrong = total = 0
    for row in sample_rows(output.shape[0], output.device).tolist():
        visible = int(tensors["lengths"][row])
        scores, kept = tensors["scores"][row, :visible], output[row].long()
        kept = kept[(kept >= 0) & (kept < visible)].unique()
        count = min(case.model.index_topk, visible)
        threshold = scores.topk(count).values[-1]
        wrong += count - int((scores[kept] >= threshold).sum()) + max(0, len(kept) - count)
        total += count
    return wrong / total


def _torch_topk(case: Case, tensors: Tensors) -> Call:
    count = min(case.model.index_topk, case.size("context"))
    return lambda: tensors["scores"].topk(count, sorted=False).indices


def _triton_topk(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_index import select_topk

    scores = tensors["scores"]
    indices = torch.full((len(scores), case.model.index_topk), -1, dtype=torch.int32, device=scores.device)
    return lambda: select_topk(scores, tensors["lengths"], indices)


def _single_query(case: Case) -> str | None:
    return None if case.size("new") == 1 else "takes one query per sequence"


INDEX_TOPK = Family(
    kernel="index_topk",
    make=make_topk,
    error=topk_error,
    tolerance=0.0,
    backends=(
        Backend("sgl_kernel", sgl_topk, SGL_TOPK, capabilities=(HOPPER, BLACKWELL)),
        Backend(
            "vllm",
            vllm_topk,
            VLLM_TOPK,
            capabilities=(HOPPER, BLACKWELL),
            limits=_single_query,
        ),
        Backend("flashinfer", flashinfer_topk, FLASHINFER_TOPK),
        Backend("triton", _triton_topk, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_topk, cpu=True),
    ),
)
