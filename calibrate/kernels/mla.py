"""Multi-head latent attention: the MHA form of prefill and the absorbed (MQA) form of decode.

DeepSeek-V2 report (arXiv 2405.04434) section 2.1 and DeepSeek-V3 report section 2.1.1. With c the cached latent,
k^R the decoupled RoPE key, and W^UK, W^UV per head h, scores are
    s_h = (q_h^C . W_h^UK c + q_h^R . k^R) / sqrt(qk_nope + qk_rope),    o_h = W_h^UV sum_j softmax(s_h)_j c_j.
The MHA form expands keys W^UK c and values W^UV c first; the absorbed form moves W^UK into the query and W^UV
behind the sum, so that all heads attend to the one latent. Both give the same numbers.
"""

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)

import math

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
from calibrate.kernels.formats import FP8, FP8_MAX, PAGE_TOKENS
from calibrate.kernels.library import TRITON
from calibrate.kernels.mla_adapters import (
    FLASH_MLA_DECODE,
    FLASHINFER_DECODE,
    FLASHINFER_PREFILL,
    TRTLLM,
    VLLM_PREFILL,
    flash_mla_decode,
    flashinfer_decode,
    flashinfer_prefill,
    trtllm_decode,
    trtllm_loses,
    vllm_prefill,
)
from calibrate.kernels.torch_attention import cudnn_prefill, flash_prefill


def expanded_attention(q: Tensor, latent: Tensor, rope: Tensor, up: Tensor, nope: int) -> Tensor:
    """MHA form. q [s, h, nope + rope], latent [l, c], rope [l, r], up [h, nope + v, c] -> [s, h, v].

    The s queries are the last of the l positions (causal). `up` stacks W^UK over W^UV.
    """
    k = torch.cat([torch.einsum("lc,hnc->lhn", latent, up[:, :nope]), _per_head(rope, up.shape[0])], -1)
    v = torch.einsum("lc,hvc->lhv", latent, up[:, nope:])
    scores = torch.einsum("shd,lhd->hsl", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("hsl,lhv->shv", _causal(scores).softmax(-1), v)


def absorbed_attention(q: Tensor, latent: Tensor, rope: Tensor, up: Tensor, nope: int) -> Tensor:
    """Absorbed form of `expanded_attention`: same arguments, same result."""
    query = torch.cat([torch.einsum("shn,hnc->shc", q[..., :nope], up[:, :nope]), q[..., nope:]], -1)
    scores = torch.einsum("shd,ld->hsl", query, torch.cat([latent, rope], -1)) / math.sqrt(q.shape[-1])
    summed = torch.einsum("hsl,lc->shc", _causal(scores).softmax(-1), latent)
    return torch.einsum("shc,hvc->shv", summed, up[:, nope:])


def _per_head(rope: Tensor, heads: int) -> Tensor:
    return rope[:, None].expand(-1, heads, -1)


def _causal(scores: Tensor) -> Tensor:
    """Mask keys that come after their query; queries [.., s, l] are the last s of l positions."""
    queries, keys = scores.shape[-2:]
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
    return scores.masked_fill(~allowed, float("-inf"))


def make_prefill(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Expanded queries, keys and values: q [b, new, h, 192], k [b, new + cached, h, 192], v [.., 128]."""
    del device
    batch, heads, new, model = case.size("batch"), case.size("heads"), case.size("new"), case.model
    keys, width = new + case.size("cached"), model.qk_nope + model.qk_rope
    return {
        "q": randn(batch, new, heads, width, generator=generator),
        "k": randn(batch, keys, heads, width, generator=generator),
        "v": randn(batch, keys, heads, model.v_head_dim, generator=generator),
    }


def reference_prefill(case: Case, tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of the output [b * new, h, v] in float64; row i is query i % new of sequence i // new."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    new, scale = q.shape[1], case.softmax_scale
    outputs = []
    for row in rows.tolist():
        sequence, query = divmod(row, new)
        visible = k.shape[1] - new + query + 1
        scores = (
            torch.einsum("hd,lhd->hl", q[sequence, query].double(), k[sequence, :visible].double()) * scale
        )
        outputs.append(torch.einsum("hl,lhv->hv", scores.softmax(-1), v[sequence, :visible].double()))
    return torch.stack(outputs)


def prefill_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled queries; the output is [b, new, h, v] in any of its flattened forms."""
    output = output.reshape(-1, case.size("heads"), case.model.v_head_dim)
    rows = sample_rows(output.shape[0], output.device)
    return (
        difference(output[rows], reference_prefill(case, tensors, rows)) if finite(output) else float("inf")
    )


MLA_PREFILL = Family(
    kernel="mla_prefill",
    make=make_prefill,
    error=prefill_error,
    tolerance=2e-5,
    backends=(
        Backend("vllm_fa3", vllm_prefill, VLLM_PREFILL, capabilities=(HOPPER,)),
        Backend("flashinfer", flashinfer_prefill, FLASHINFER_PREFILL, capabilities=(HOPPER, BLACKWELL)),
        Backend("cudnn", cudnn_prefill, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", flash_prefill, cpu=True),
    ),
)


def make_decode(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Absorbed queries q [b, s, h, 576] and a paged latent cache [pages, 64, 576] that `pages` [b, n] points into.

    The pages of a sequence lie in random order; the last page's tokens beyond the context hold large numbers, which
    a kernel that counts them would show. With an FP8 cache queries are numbers of FP8 too: some kernels round them.
    """
    del device
    batch, heads, context = case.size("batch"), case.size("heads"), case.size("context")
    width = case.model.kv_lora_rank + case.model.qk_rope
    queries = randn(batch, case.size("queries"), heads, width, generator=generator)
    each = -(-context // PAGE_TOKENS)
    where = generator.device
    pages = torch.randperm(batch * each, generator=generator, device=where).int().view(batch, each)
    cache = randn(batch * each, PAGE_TOKENS, width, generator=generator)
    if context % PAGE_TOKENS:
        cache[pages[:, -1].long(), context % PAGE_TOKENS :] = FP8_MAX
    if case.operation.options["kv_cache"] == "fp8":
        cache, queries = cache.to(FP8), queries.to(FP8).to(queries.dtype)
    return {
        "q": queries,
        "cache": cache,
        "pages": pages,
        "lengths": torch.full((batch,), context, dtype=torch.int32, device=where),
    }


def gather_pages(tensors: Tensors, sequence: int, context: int) -> Tensor:
    """Cache entries of one sequence in order: [context, width]."""
    return tensors["cache"][tensors["pages"][sequence].long()].flatten(0, 1)[:context]


def reference_decode(case: Case, tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of the output [b * s, h, latent] in float64; with several queries the mask is causal."""
    q, context, latent = tensors["q"], case.size("context"), case.model.kv_lora_rank
    queries, scale = q.shape[1], case.softmax_scale
    outputs = []
    for row in rows.tolist():
        sequence, query = divmod(row, queries)
        cache = gather_pages(tensors, sequence, context - queries + query + 1).double()
        scores = q[sequence, query].double() @ cache.T * scale
        outputs.append(scores.softmax(-1) @ cache[:, :latent])
    return torch.stack(outputs)


def decode_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled queries; the output is [b, s, h, latent] in any of its flattened forms."""
    output = output.reshape(-1, case.size("heads"), case.model.kv_lora_rank)
    rows = sample_rows(output.shape[0], output.device)
    return difference(output[rows], reference_decode(case, tensors, rows)) if finite(output) else float("inf")


def _torch_decode(case: Case, tensors: Tensors) -> Call:
    """Attention with all heads as queries of the one latent, over a contiguous cache (pages are gathered before).

    On a GPU two batched products with float32 scores: the fused kernels stop at 256-wide heads.
    """
    q, context, latent = tensors["q"], case.size("context"), case.model.kv_lora_rank
    batch, queries, heads, width = q.shape
    cache = torch.stack([gather_pages(tensors, sequence, context) for sequence in range(batch)]).to(q.dtype)
    visible = torch.ones(queries, context, dtype=torch.bool, device=q.device).tril(context - queries)
    mask = visible.repeat_interleave(heads, 0) if queries > 1 else None
    query, scale = q.reshape(batch, queries * heads, width), case.softmax_scale
    if q.device.type == "cpu":
        k = cache[:, None]
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(query[:, None], k, k[..., :latent], attn_mask=mask, scale=scale)
    keys, values = cache.transpose(1, 2), cache[..., :latent]

    def run() -> Tensor:
        scores = torch.bmm(query, keys, out_dtype=torch.float32) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.bmm(scores.softmax(-1).to(q.dtype), values)

    return run


def _triton_decode(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_attention import decode

    q, latent = tensors["q"], case.model.kv_lora_rank
    output = poisoned(*q.shape[:3], latent, dtype=q.dtype, device=q.device)
    return lambda: decode(
        q, tensors["cache"], tensors["pages"], tensors["lengths"], output, case.softmax_scale
    )


def _bf16_cache(case: Case) -> str | None:
    return None if case.operation.options["kv_cache"] == "bf16" else "reads a BF16 cache"


MLA_DECODE = Family(
    kernel="mla_decode",
    make=make_decode,
    error=decode_error,
    tolerance=2e-5,
    backends=(
        Backend(
            "flash_mla", flash_mla_decode, FLASH_MLA_DECODE, capabilities=(HOPPER,), limits=_bf16_cache
        ),
        Backend("flashinfer_trtllm", trtllm_decode, TRTLLM, capabilities=(BLACKWELL,), loses=trtllm_loses),
        Backend(
            "flashinfer", flashinfer_decode, FLASHINFER_DECODE, capabilities=(HOPPER, BLACKWELL), limits=_bf16_cache
        ),
        Backend("triton", _triton_decode, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_decode, cpu=True),
    ),
)  # fmt: skip
