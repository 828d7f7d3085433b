"""Adapters to sparse-attention kernels of other packages: FlashMLA, DeepGEMM, SGLang, vLLM, flashinfer.

Signatures as read in FlashMLA `flash_mla_interface.py`, DeepGEMM `tests/test_attention.py`, sgl-kernel `top_k.py`,
vLLM `_custom_ops.py` and flashinfer `topk.py`. Each builds a call from the inputs of `calibrate.kernels.dsa`.
"""

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors
from calibrate.kernels.formats import LATENT_ENTRY_BYTES, PAGE_TOKENS
from calibrate.kernels.mla_adapters import hopper_options

# ruff: noqa: PLC0415 (other packages are imported only where their backend runs)


def deep_gemm_logits(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's prefill logits; the keys of all sequences lie one after the other."""
    from deep_gemm import fp8_mqa_logits

    q, weights = tensors["q"].flatten(0, 1), tensors["weights"].flatten(0, 1)
    keys = (tensors["keys"].flatten(0, 1), tensors["factors"].flatten())
    batch, new, context = case.size("batch"), case.size("new"), case.size("context")
    sequence = torch.arange(batch, device=q.device).repeat_interleave(new)
    query = torch.arange(new, device=q.device).repeat(batch)
    starts = (sequence * context).int()
    ends = (starts + context - new + query + 1).int()

    def own_keys() -> Tensor:
        # Logits are columns of all sequences' keys; a single sequence, as engines run it, needs no shift.
        logits: Tensor = fp8_mqa_logits(q, keys, weights, starts, ends)
        return (
            logits
            if batch == 1
            else logits.view(batch, new, batch, context).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        )

    return own_keys


def deep_gemm_paged_logits(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's decode logits over paged keys, with the schedule computed once per batch."""
    from deep_gemm import fp8_paged_mqa_logits, get_num_sms, get_paged_mqa_logits_metadata

    q, batch, new, context = tensors["q"], case.size("batch"), case.size("new"), case.size("context")
    lengths = torch.arange(context - new + 1, context + 1, dtype=torch.int32, device=q.device).repeat(
        batch, 1
    )
    schedule = get_paged_mqa_logits_metadata(lengths, PAGE_TOKENS, get_num_sms())
    cache, weights = tensors["packed"].unsqueeze(2), tensors["weights"].flatten(0, 1)
    return lambda: fp8_paged_mqa_logits(
        q, cache, weights, lengths, tensors["pages"], schedule, context, clean_logits=False
    )


def sgl_topk(case: Case, tensors: Tensors) -> Call:
    """SGLang's radix selection of 2,048."""
    from sgl_kernel import fast_topk_v2

    return lambda: fast_topk_v2(tensors["scores"], tensors["lengths"], case.model.index_topk)


def vllm_topk(case: Case, tensors: Tensors) -> Call:
    """vLLM's selection per row, decode form."""
    from vllm._custom_ops import top_k_per_row_decode

    scores, top_k = tensors["scores"], case.model.index_topk
    indices = torch.full((scores.shape[0], top_k), -1, dtype=torch.int32, device=scores.device)

    def run() -> Tensor:
        top_k_per_row_decode(
            scores, 1, tensors["lengths"], indices, scores.shape[0], scores.stride(0), scores.stride(1), top_k
        )
        return indices

    return run


def flashinfer_topk(case: Case, tensors: Tensors) -> Call:
    """flashinfer's radix selection; returns values and indices."""
    from flashinfer import top_k

    count = min(case.model.index_topk, case.size("context"))
    return lambda: top_k(tensors["scores"], count)[1]


def flash_mla_packed(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's sparse kernel over the packed FP8 cache (decode; engines also run prefill through it)."""
    from flash_mla import flash_mla_with_kvcache, get_mla_metadata

    cache = tensors["cache"].view(-1, PAGE_TOKENS, 1, LATENT_ENTRY_BYTES)
    schedule = get_mla_metadata()[0]
    options = hopper_options(flash_mla_with_kvcache)

    def run() -> Tensor:
        output: Tensor = flash_mla_with_kvcache(
            tensors["q"], cache, None, None, case.model.kv_lora_rank, schedule, softmax_scale=case.softmax_scale,
            is_fp8_kvcache=True, indices=tensors["indices"], **options,
        )[0]  # fmt: skip
        return output

    run()  # the first call fills the schedule, which must not happen inside a graph capture
    return run


def flash_mla_rows(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's sparse prefill over BF16 rows; sequences share one array of rows."""
    from flash_mla import flash_mla_sparse_fwd

    q, rows = tensors["q"].flatten(0, 1), tensors["cache"].unsqueeze(1)
    indices, scale = tensors["indices"].flatten(0, 1).unsqueeze(1), case.softmax_scale
    return lambda: flash_mla_sparse_fwd(q, rows, indices, scale, case.model.kv_lora_rank)[0]
