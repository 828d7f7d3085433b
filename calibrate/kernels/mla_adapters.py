"""Adapters to attention kernels of other packages: FlashMLA, flashinfer and vLLM's FlashAttention 3.

Signatures as read in FlashMLA 9241ae3 and sgl-flash-mla 1.0.0 `flash_mla/flash_mla_interface.py`, flashinfer fb28d72
`flashinfer/mla/_core.py` and `prefill.py`, vLLM `vllm_flash_attn`. Each builds a call from the inputs of
`calibrate.kernels.mla`.
"""

import inspect
from typing import Any, Final

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors
from calibrate.kernels.formats import FP8, PAGE_TOKENS
from calibrate.kernels.library import FLASH_ATTENTION, FLASH_MLA, Needs

FLASH_MLA_DECODE: Final = Needs(FLASH_MLA, ("flash_mla_with_kvcache", "get_mla_metadata"))
FLASHINFER_DECODE: Final = Needs(("flashinfer.mla",), ("BatchMLAPagedAttentionWrapper",))
FLASHINFER_PREFILL: Final = Needs(("flashinfer.prefill",), ("BatchPrefillWithRaggedKVCacheWrapper",))
TRTLLM: Final = Needs(("flashinfer.mla", "flashinfer.decode"), ("trtllm_batch_decode_with_kv_cache_mla",))
VLLM_PREFILL: Final = Needs(FLASH_ATTENTION, ("flash_attn_varlen_func",))

WORKSPACE_BYTES: Final = 128 * 2**20
"""Scratch memory that flashinfer's wrappers ask for."""


def legacy_options(function: Any) -> dict[str, bool]:
    """The build of FlashMLA that SGLang ships keeps Hopper, 576-wide heads and the V3.2 formats behind `use_legacy`:
    its current kernels take 512-wide ones alone (sgl-flash-mla 1.0.0). Others have no such option."""
    return {"use_legacy": True} if "use_legacy" in inspect.signature(function).parameters else {}


def flash_mla_decode(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's dense decode over a BF16 cache of 64-token pages, any number of heads."""
    attend, metadata = FLASH_MLA_DECODE.load()
    cache, queries = tensors["cache"].unsqueeze(2), case.size("queries")
    # Releases of 2025 compute the schedule here; later ones return an empty one that the first call fills.
    schedule, splits = metadata(tensors["lengths"], queries * case.size("heads"), 1)
    options = legacy_options(attend)

    def run() -> Tensor:
        output: Tensor = attend(
            tensors["q"], cache, tensors["pages"], tensors["lengths"], case.model.kv_lora_rank, schedule, splits,
            softmax_scale=case.softmax_scale, causal=queries > 1, **options,
        )[0]  # fmt: skip
        return output

    run()  # the first call fills the schedule, which must not happen inside a graph capture
    return run


def _indptr(count: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(0, (count + 1) * step, step, dtype=torch.int32, device=device)


def flashinfer_decode(case: Case, tensors: Tensors) -> Call:
    """flashinfer's paged MLA (FlashAttention 2 or 3 by GPU)."""
    (wrapper_type,) = FLASHINFER_DECODE.load()
    q, cache, pages, latent = tensors["q"], tensors["cache"], tensors["pages"], case.model.kv_lora_rank
    batch, queries, heads, _ = q.shape
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = wrapper_type(workspace, backend="auto")
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


TRTLLM_PAGES: Final = 2
"""TensorRT-LLM's page tables have rows of a multiple of 128 tokens (flashinfer, `mla/_core.py`)."""
ROUNDED_WEIGHTS: Final = 1e-3
"""Half the squared relative error of attention weights rounded to e4m3: steps of 2^-3 of a binade are 2.6% rms of what
is rounded, which random values do not average out: 3.4e-4. DeepGEMM's tests allow FP8 products 1e-3."""


def trtllm_decode(case: Case, tensors: Tensors) -> Call:
    """TensorRT-LLM's MLA decode on Blackwell, through flashinfer; an FP8 cache takes FP8 queries."""
    (attend,) = TRTLLM.load()
    q, cache, model = tensors["q"], tensors["cache"], case.model
    query = q.to(FP8) if cache.dtype == FP8 else q
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    pages = torch.nn.functional.pad(tensors["pages"], (0, -tensors["pages"].shape[1] % TRTLLM_PAGES))
    return lambda: attend(
        query=query, kv_cache=cache.unsqueeze(1), workspace_buffer=workspace, qk_nope_head_dim=model.qk_nope,
        kv_lora_rank=model.kv_lora_rank, qk_rope_head_dim=model.qk_rope, block_tables=pages,
        seq_lens=tensors["lengths"], max_seq_len=case.size("context"), bmm1_scale=case.softmax_scale, bmm2_scale=1.0,
    )  # fmt: skip


def trtllm_loses(case: Case) -> float:
    """With an FP8 cache the attention weights are rounded to e4m3 before they meet the values."""
    return ROUNDED_WEIGHTS if case.operation.options["kv_cache"] == "fp8" else 0.0


def flashinfer_prefill(case: Case, tensors: Tensors) -> Call:
    """flashinfer's ragged prefill with 192-wide keys and 128-wide values."""
    (wrapper_type,) = FLASHINFER_PREFILL.load()
    q, k, v = (tensors[name].flatten(0, 1) for name in "qkv")
    batch, new, heads, width = tensors["q"].shape
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = wrapper_type(workspace, "NHD")
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
    (attend,) = VLLM_PREFILL.load()
    q, k, v = (tensors[name].flatten(0, 1) for name in "qkv")
    batch, new = tensors["q"].shape[:2]
    keys = tensors["k"].shape[1]
    starts, key_starts = _indptr(batch, new, q.device), _indptr(batch, keys, q.device)
    return lambda: attend(
        q, k, v, max_seqlen_q=new, cu_seqlens_q=starts, max_seqlen_k=keys, cu_seqlens_k=key_starts,
        softmax_scale=case.softmax_scale, causal=True, fa_version=3,
    )  # fmt: skip
