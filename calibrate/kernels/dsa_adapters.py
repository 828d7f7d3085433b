"""Adapters to sparse-attention kernels of other packages: FlashMLA, DeepGEMM, SGLang, vLLM, flashinfer.

Signatures as read in FlashMLA 9241ae3 and sgl-flash-mla 1.0.0 `flash_mla/flash_mla_interface.py`; DeepGEMM 2.1.1 to
2.6.1 `csrc/apis/attention.hpp` and sgl-deep-gemm 0.2.5 `deep_gemm/__init__.py`; sgl-kernel `top_k.py`, vLLM
`_custom_ops.py` and flashinfer fb28d72 `topk.py`. Each builds a call from the inputs of `calibrate.kernels.dsa`.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors, on_blackwell
from calibrate.kernels.formats import LATENT_ENTRY_BYTES, PAGE_TOKENS
from calibrate.kernels.library import DEEP_GEMM, FLASH_MLA, Needs
from calibrate.kernels.mla_adapters import FLASH_MLA_DECODE, legacy_options

LOGITS: Final = Needs(DEEP_GEMM, ("fp8_mqa_logits|fp8_fp4_mqa_logits",))
PAGED_LOGITS: Final = Needs(
    DEEP_GEMM,
    ("fp8_paged_mqa_logits|fp8_fp4_paged_mqa_logits", "get_num_sms", "get_paged_mqa_logits_metadata"),
)
SGL_TOPK: Final = Needs(("sgl_kernel", "sglang.jit_kernel.fast_topk"), ("fast_topk_v2",))
"""SGLang moves its kernels from the first to the second, which compiles them when first called (issue 17865)."""
VLLM_TOPK: Final = Needs(("vllm._custom_ops",), ("top_k_per_row_decode",))
FLASHINFER_TOPK: Final = Needs(("flashinfer",), ("top_k",))
FLASH_MLA_ROWS: Final = Needs(FLASH_MLA, ("flash_mla_sparse_fwd",))


def _takes(function: Any, name: str, otherwise: bool) -> bool:
    """Whether a function has an argument; `otherwise` for one of C++ that does not say in its docstring either."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return name in text if (text := function.__doc__ or "") else otherwise


def _logits_options(function: Any) -> dict[str, bool]:
    """Engines do not have logits outside a query's keys overwritten; releases without the option never do."""
    return {"clean_logits": False} if _takes(function, "clean_logits", otherwise=True) else {}


def _query_of(function: Any) -> Callable[[Tensor], Any]:
    """The functions for FP8 and FP4 together take a query with its scales; FP8 has none."""
    both = "fp4" in getattr(function, "__name__", "")
    return lambda q: (q, None) if both else q


def deep_gemm_logits(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's prefill logits; the keys of all sequences lie one after the other."""
    (compute,) = LOGITS.load()
    q, weights = tensors["q"].flatten(0, 1), tensors["weights"].flatten(0, 1)
    keys = (tensors["keys"].flatten(0, 1), tensors["factors"].flatten())
    batch, new, context = case.size("batch"), case.size("new"), case.size("context")
    sequence = torch.arange(batch, device=q.device).repeat_interleave(new)
    query = torch.arange(new, device=q.device).repeat(batch)
    starts = (sequence * context).int()
    ends = (starts + context - new + query + 1).int()
    query, options = _query_of(compute)(q), _logits_options(compute)
    # Without the option the longest row is asked for, and rows begin in column 0 (sgl-deep-gemm 0.2.5).
    compressed = not options
    arguments = (context,) if compressed else ()

    def own_keys() -> Tensor:
        # Logits are columns of all sequences' keys; a single sequence, as engines run it, needs no shift.
        logits: Tensor = compute(query, keys, weights, starts, ends, *arguments, **options)
        return (
            logits
            if batch == 1 or compressed
            else logits.view(batch, new, batch, context).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        )

    return own_keys


def deep_gemm_paged_logits(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's decode logits over paged keys, with the schedule computed once per batch.

    The kernel takes 1 or 2 queries per sequence (DeepGEMM 2.6.1, `next_n == 1 or next_n == 2`). More are sequences of
    their own in pairs or, where they are odd, one by one, as SGLang runs them (pull request 20115).
    """
    compute, multiprocessors, metadata = PAGED_LOGITS.load()
    batch, new, context = case.size("batch"), case.size("new"), case.size("context")
    together = 1 if new % 2 else 2
    q = tensors["q"].reshape(-1, together, *tensors["q"].shape[2:])
    pages = tensors["pages"].repeat_interleave(new // together, 0)
    lengths = torch.arange(context - new + 1, context + 1, dtype=torch.int32, device=q.device)
    lengths = lengths.repeat(batch).view(-1, together)
    try:
        schedule = metadata(lengths, PAGE_TOKENS, multiprocessors())
    except RuntimeError:  # before DeepGEMM 2.2 lengths are those of sequences
        lengths = lengths[:, -1].contiguous()
        schedule = metadata(lengths, PAGE_TOKENS, multiprocessors())
    cache, weights = tensors["packed"].unsqueeze(2), tensors["weights"].flatten(0, 1)
    query, options = _query_of(compute)(q), _logits_options(compute)
    return lambda: compute(query, cache, weights, lengths, pages, schedule, context, **options)


def sgl_topk(case: Case, tensors: Tensors) -> Call:
    """SGLang's radix selection of 2,048."""
    (select,) = SGL_TOPK.load()
    return lambda: select(tensors["scores"], tensors["lengths"], case.model.index_topk)


def vllm_topk(case: Case, tensors: Tensors) -> Call:
    """vLLM's selection per row, decode form."""
    (select,) = VLLM_TOPK.load()
    scores, top_k = tensors["scores"], case.model.index_topk
    indices = torch.full((scores.shape[0], top_k), -1, dtype=torch.int32, device=scores.device)

    def run() -> Tensor:
        select(
            scores, 1, tensors["lengths"], indices, scores.shape[0], scores.stride(0), scores.stride(1), top_k
        )
        return indices

    return run


def flashinfer_topk(case: Case, tensors: Tensors) -> Call:
    """flashinfer's radix selection; returns values and indices."""
    (select,) = FLASHINFER_TOPK.load()
    count = min(case.model.index_topk, case.size("context"))
    return lambda: select(tensors["scores"], count)[1]


HEAD_GROUPS: Final = (64, 128)
"""Heads that FlashMLA's sparse kernels take (`csrc/api/sparse_decode.h`, `sparse_fwd.h`)."""


def too_many_heads(case: Case) -> str | None:
    """Fewer heads are padded, more are not taken."""
    most = HEAD_GROUPS[-1]
    return f"takes up to {most} heads" if case.size("heads") > most else None


def padded(q: Tensor, heads: int) -> Tensor:
    """A query [.., h, d] with zeros for the heads that a rank does not have."""
    return q.new_zeros(*q.shape[:-2], heads, q.shape[-1])


def flash_mla_packed(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's sparse kernel over the packed FP8 cache (decode; engines also run prefill through it).

    The heads of a TP rank are padded to 64 or 128 in every call, as vLLM does (`flashmla_sparse.py`,
    `fp8_decode_padded_heads`).
    """
    attend, metadata = FLASH_MLA_DECODE.load()
    q, indices, heads = tensors["q"], tensors["indices"], case.size("heads")
    batch, new, top_k = indices.shape
    taken = next(group for group in HEAD_GROUPS if heads <= group)
    cache = tensors["cache"].view(-1, PAGE_TOKENS, 1, LATENT_ENTRY_BYTES)
    lengths = torch.full((batch,), case.size("context"), dtype=torch.int32, device=q.device)
    pages = torch.zeros(batch, 1, dtype=torch.int32, device=q.device)  # ignored where indices are given
    schedule, splits = metadata(lengths, new * taken, 1, taken, True, top_k)
    options = legacy_options(attend)
    query = q if taken == heads else padded(q, taken)

    def run() -> Tensor:
        if taken != heads:
            query[..., :heads, :] = q
        output: Tensor = attend(
            query, cache, pages, lengths, case.model.kv_lora_rank, schedule, splits, softmax_scale=case.softmax_scale,
            is_fp8_kvcache=True, indices=indices, **options,
        )[0]  # fmt: skip
        return output[..., :heads, :]

    run()  # the first call fills the schedule, which must not happen inside a graph capture
    return run


def flash_mla_rows(case: Case, tensors: Tensors) -> Call:
    """FlashMLA's sparse prefill over BF16 rows; sequences share one array of rows.

    Heads are padded in every call, to 64 on Hopper and 128 on Blackwell, as SGLang does (`nsa_backend.py`,
    `_forward_flashmla_sparse`).
    """
    (attend,) = FLASH_MLA_ROWS.load()
    q, rows, heads = tensors["q"].flatten(0, 1), tensors["cache"].unsqueeze(1), case.size("heads")
    indices, scale = tensors["indices"].flatten(0, 1).unsqueeze(1), case.softmax_scale
    group = HEAD_GROUPS[on_blackwell(q)]
    taken = -(-heads // group) * group
    query = q if taken == heads else padded(q, taken)
    options = legacy_options(attend)

    def run() -> Tensor:
        if taken != heads:
            query[:, :heads] = q
        output: Tensor = attend(query, rows, indices, scale, case.model.kv_lora_rank, **options)[0]
        return output[:, :heads]

    return run
