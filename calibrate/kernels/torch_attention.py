"""torch's fused attention kernels for the prefill of a prompt behind a cached prefix.

Of queries behind a prefix torch's dispatcher takes another kernel than of a whole prompt. Here both take one: all
queries over the prefix without a mask, all over the new tokens causally, and the two merged by their
log-sum-exps, as engines do for chunked prefill (vLLM, `v1/attention/backends/mla/common.py`).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors

Attention = Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]
"""q [b, h, s, d], k, v, causal, scale -> output [b, h, s, d] and log-sum-exp [b, h, s]."""


def _flash(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """FlashAttention 2, and its counterpart on a CPU; values as wide as keys."""
    if q.device.type == "cpu":
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    else:
        found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    return found[0], found[1]


def _cudnn(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """cuDNN's attention, which takes values narrower than keys."""
    found = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, causal, False, scale=scale
    )
    return found[0], found[1].view(q.shape[:3])


def merge(first: Tensor, first_log: Tensor, second: Tensor, second_log: Tensor) -> Tensor:
    """Attention over two sets of keys from that over each: weights are e^log-sum-exp, normalised. Logs [b, h, s]."""
    share = torch.sigmoid(second_log - first_log).unsqueeze(-1)
    return torch.lerp(first, second, share.to(first.dtype))


def _behind_prefix(attend: Attention, case: Case, tensors: Tensors, value_width: int) -> Call:
    q, k, v = (tensors[name].transpose(1, 2) for name in "qkv")
    v = pad(v, (0, value_width - v.shape[-1]))
    cached, scale, width = case.size("cached"), case.softmax_scale, case.model.v_head_dim
    (old_k, new_k), (old_v, new_v) = (x.split([cached, x.shape[2] - cached], 2) for x in (k, v))

    def run() -> Tensor:
        output, logs = attend(q, new_k, new_v, True, scale)
        if cached:
            prefix, prefix_logs = attend(q, old_k, old_v, False, scale)
            output = merge(prefix, prefix_logs, output, logs)
        return output.transpose(1, 2)[..., :width]

    return run


def flash_prefill(case: Case, tensors: Tensors) -> Call:
    """FlashAttention 2, with values widened by zeros to the width of the keys."""
    return _behind_prefix(_flash, case, tensors, tensors["q"].shape[-1])


def cudnn_prefill(case: Case, tensors: Tensors) -> Call:
    """cuDNN's kernel, the fastest in torch on Hopper and Blackwell."""
    return _behind_prefix(_cudnn, case, tensors, case.model.v_head_dim)
