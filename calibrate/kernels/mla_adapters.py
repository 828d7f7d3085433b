"""Adapters to attention kernels of other packages: FlashMLA, flashinfer and vLLM's FlashAttention 3.

Signatures as read in FlashMLA `flash_mla_interface.py`, flashinfer 0.7 `mla/_batch_mla/_wrapper.py` and
`prefill.py`, vLLM `vllm_flash_attn`. Each builds a call from the inputs of `calibrate.kernels.mla`.
"""

# ruff: noqa: PLC0415 (other packages are imported only where their backend runs)

import inspect
from typing import Any, Final

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors
from calibrate.kernels.formats import FP8, PAGE_TOKENS

WORKSPACE_BYTES: Final = 128 * 2**20
"""Scratch memory that flashinfer's wrappers ask for."""


def whole_head_groups(case: Case) -> str | None:
    """FlashMLA works on 64 query heads at a time."""
    return "takes 64 or 128 heads" if case.size("heads") not in (64, 128) else None


def hopper_options(function: Any) -> dict[str, bool]:
    """The build of FlashMLA that SGLang ships takes `use_legacy` for the V3.2 formats and Hopper; others do not."""
    return {"use_legacy": True} if "use_legacy" in inspect.signature(function).parameters else {}


def flash_mla_decode(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's dense decode over a BF16 cache of 64-token pages."""
    from flash_mla import flash_mla_with_kvcache, get_mla_metadata

    cache = tensors["cache"].unsqueeze(2)
    schedule = get_mla_metadata()[0]
    options = hopper_options(flash_mla_with_kvcache)

    def run() -> Tensor:
        output: Tensor = flash_mla_with_kvcache(
            tensors["q"], cache, tensors["pages"], tensors["lengths"], case.model.kv_lora_rank, schedule,
            softmax_scale=case.softmax_scale, causal=case.size("queries") > 1, **options,
        )[0]  # fmt: skip
        return output

    run()  # the first call fills the schedule, which must not happen inside a graph capture
    return run


def _indptr(count: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(0, (count + 1) * step, step, dtype=torch.int32, device=device)


def flashinfer_decode(case: Case, tensors: Tensors) -> Call:
    """flashinfer's paged MLA (FlashAttention 2 or 3 by GPU)."""
    from flashinfer.mla import BatchMLAPagedAttentionWrapper

    q, cache, pages, latent = tensors["q"], tensors["cache"], tensors["pages"], case.model.kv_lora_rank
    batch, queries, heads, _ = q.shape
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = BatchMLAPagedAttentionWrapper(workspace, backend="auto")
    wrapper.plan(
        qo_indptr=_indptr(batch, queries, q.device),
        kv_indptr=_indptr(batch, pages.shape[1], q.device),
        kv_indices=pages.flatten(),
        kv_len_arr=tensors["lengths"],
        num_heads=heads,
        head_dim_ckv=latent,
        head_dim_kpe=case.model.qk_rope,
        page_size=PAGE_TOKENS,
        causal=queries > 1,
        sm_scale=case.softmax_scale,
        q_data_type=q.dtype,
        kv_data_type=cache.dtype,
    )
    query = q.flatten(0, 1)
    parts = (query[..., :latent], query[..., latent:], cache[..., :latent], cache[..., latent:])
    return lambda: wrapper.run(*parts)


def trtllm_decode(case: Case, tensors: Tensors) -> Call:
    """TensorRT-LLM's MLA decode on Blackwell, through flashinfer; an FP8 cache takes FP8 queries."""
    from flashinfer.mla import trtllm_batch_decode_with_kv_cache_mla

    q, cache, model = tensors["q"], tensors["cache"], case.model
    query = q.to(FP8) if cache.dtype == FP8 else q
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    return lambda: trtllm_batch_decode_with_kv_cache_mla(
        query=query, kv_cache=cache.unsqueeze(1), workspace_buffer=workspace, qk_nope_head_dim=model.qk_nope,
        kv_lora_rank=model.kv_lora_rank, qk_rope_head_dim=model.qk_rope, block_tables=tensors["pages"],
        seq_lens=tensors["lengths"], max_seq_len=case.size("context"), bmm1_scale=case.softmax_scale, bmm2_scale=1.0,
    )  # fmt: skip


def flashinfer_prefill(case: Case, tensors: Tensors) -> Call:
    """flashinfer's ragged prefill with 192-wide keys and 128-wide values."""
    from flashinfer.prefill import BatchPrefillWithRaggedKVCacheWrapper

    q, k, v = (tensors[name].flatten(0, 1) for name in "qkv")
    batch, new, heads, width = tensors["q"].shape
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD")
    wrapper.plan(
        qo_indptr=_indptr(batch, new, q.device),
        kv_indptr=_indptr(batch, tensors["k"].shape[1], q.device),
        num_qo_heads=heads,
        num_kv_heads=heads,
        head_dim_qk=width,
        head_dim_vo=case.model.v_head_dim,
        causal=True,
        sm_scale=case.softmax_scale,
        q_data_type=q.dtype,
        kv_data_type=k.dtype,
    )
    return lambda: wrapper.run(q, k, v)


def vllm_prefill(case: Case, tensors: Tensors) -> Call:
    """FlashAttention 3 as vLLM ships it, on Hopper."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    q, k, v = (tensors[name].flatten(0, 1) for name in "qkv")
    batch, new = tensors["q"].shape[:2]
    keys = tensors["k"].shape[1]
    starts, key_starts = _indptr(batch, new, q.device), _indptr(batch, keys, q.device)
    return lambda: flash_attn_varlen_func(
        q, k, v, max_seqlen_q=new, cu_seqlens_q=starts, max_seqlen_k=keys, cu_seqlens_k=key_starts,
        softmax_scale=case.softmax_scale, causal=True, fa_version=3,
    )  # fmt: skip
