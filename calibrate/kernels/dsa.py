"""DeepSeek Sparse Attention: absorbed MLA over the entries that the indexer kept.

DeepSeek-V3.2 report, section 2. Where the context is not longer than `index_topk`, this is dense attention.
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
    finite,
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.dsa_adapters import FLASH_MLA_ROWS, flash_mla_packed, flash_mla_rows, too_many_heads
from calibrate.kernels.formats import LATENT, PAGE_TOKENS, dequantize_latent, quantize_latent
from calibrate.kernels.library import TRITON
from calibrate.kernels.mla_adapters import FLASH_MLA_DECODE

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)


def make_sparse(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Absorbed queries q [b, s, h, 576], cache entries, and the entries that each query kept, int32 [b, s, k].

    FP8: packed [n, 656]; BF16: [n, 576]; n = b x pages x 64. Kept keys are spread evenly over those that the query
    may see, in one random order; entries beyond them are -1. The pages of a sequence lie in random order.
    """
    del device
    batch, heads, new, context = (case.size(axis) for axis in ("batch", "heads", "new", "context"))
    top_k, where = case.model.index_topk, generator.device
    each = -(-context // PAGE_TOKENS)
    cache = randn(
        batch * each * PAGE_TOKENS, case.model.kv_lora_rank + case.model.qk_rope, generator=generator
    )
    if case.operation.options["kv_cache"] == "fp8":
        cache = quantize_latent(cache)
    pages = torch.randperm(batch * each, generator=generator, device=where).view(batch, each)
    visible = torch.arange(context - new + 1, context + 1, device=where)[:, None].repeat(batch, 1)
    column = torch.randperm(top_k, generator=generator, device=where)
    jitter = torch.rand(batch * new, top_k, generator=generator, device=where)
    spread = ((column + jitter) * visible / top_k).long().clamp(max=visible - 1)
    position = torch.where(visible >= top_k, spread, column)
    entry = (
        pages.repeat_interleave(new, 0).gather(1, (position // PAGE_TOKENS).clamp(max=each - 1)) * PAGE_TOKENS
    )
    indices = torch.where(position < visible, entry + position % PAGE_TOKENS, -1)
    return {
        "q": randn(batch, new, heads, cache_width(case), generator=generator),
        "cache": cache,
        "indices": indices.int().view(batch, new, top_k),
    }


def cache_width(case: Case) -> int:
    """Width of an absorbed query: latent and RoPE key, 576."""
    return case.model.kv_lora_rank + case.model.qk_rope


def entries_of(cache: Tensor, indices: Tensor) -> Tensor:
    """Selected cache entries as float32 [.., 576], whichever way the cache is packed; indices must be valid."""
    entries = cache[indices.long()]
    return dequantize_latent(entries) if cache.dtype == torch.uint8 else entries.float()


def sparse_attention(q: Tensor, cache: Tensor, indices: Tensor, scale: float) -> Tensor:
    """Absorbed attention over selected entries. q [s, h, 576], indices [s, k] (-1: none) -> [s, h, 512], in q's dtype.

    Every query must have at least one entry.
    """
    entries = entries_of(cache, indices.clamp(min=0)).to(q.dtype)
    scores = torch.einsum("shd,skd->shk", q, entries) * scale
    scores = scores.masked_fill((indices < 0)[:, None], float("-inf"))
    return torch.einsum("shk,skc->shc", scores.softmax(-1), entries[..., :LATENT])


def sparse_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled queries; the output is [b, s, h, latent] in any of its flattened forms."""
    output = output.reshape(-1, case.size("heads"), case.model.kv_lora_rank)
    if not finite(output):
        return float("inf")
    rows = sample_rows(output.shape[0], output.device)
    q, indices = tensors["q"].flatten(0, 1)[rows].double(), tensors["indices"].flatten(0, 1)[rows]
    return difference(output[rows], sparse_attention(q, tensors["cache"], indices, case.softmax_scale))


def _torch_sparse(case: Case, tensors: Tensors) -> Call:
    """Gather, dequantise and attend, one sequence after the other; the gather is part of the time."""
    q, indices, scale = tensors["q"], tensors["indices"], case.softmax_scale
    attend = torch.nn.functional.scaled_dot_product_attention

    def run() -> Tensor:
        outputs = []
        for sequence in range(q.shape[0]):
            kept = indices[sequence]
            entries = entries_of(tensors["cache"], kept.clamp(min=0)).to(q.dtype)
            mask = (kept >= 0)[:, None]
            outputs.append(attend(q[sequence], entries, entries[..., :LATENT], attn_mask=mask, scale=scale))
        return torch.stack(outputs)

    return run


def _triton_sparse(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_attention import sparse

    q = tensors["q"]
    output = poisoned(*q.shape[:3], LATENT, dtype=q.dtype, device=q.device)
    return lambda: sparse(q, tensors["cache"], tensors["indices"], output, case.softmax_scale)


def _packed_only(case: Case) -> str | None:
    wrong = "reads the 656-byte FP8 cache" if case.operation.options["kv_cache"] != "fp8" else None
    return wrong or too_many_heads(case)


def _rows_only(case: Case) -> str | None:
    wrong = "reads BF16 rows" if case.operation.options["kv_cache"] != "bf16" else None
    return wrong or too_many_heads(case)


_GPUS = (HOPPER, BLACKWELL)
_SPARSE = (
    Backend("flash_mla", flash_mla_packed, FLASH_MLA_DECODE, capabilities=_GPUS, limits=_packed_only),
    Backend("flash_mla", flash_mla_rows, FLASH_MLA_ROWS, capabilities=_GPUS, limits=_rows_only),
    Backend("triton", _triton_sparse, TRITON, capabilities=_GPUS),
    Backend("torch", _torch_sparse, cpu=True),
)

SPARSE_MLA_PREFILL = Family("sparse_mla_prefill", make_sparse, sparse_error, 2e-5, _SPARSE)
SPARSE_MLA_DECODE = Family("sparse_mla_decode", make_sparse, sparse_error, 2e-5, _SPARSE)
