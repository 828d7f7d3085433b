"""Around the experts: the gate's selection with bias and group limit, rows to their experts, and their weighted sum.

DeepSeek-V3 report, section 2.1.2: affinity s = sigmoid(logits); selection by s + bias, first the groups with the
largest sum of their two best, then the top-k experts inside; weights are s of the chosen ones, normalised. The
routed scaling factor is left out: it multiplies all weights alike.
"""

import contextlib
import inspect

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
from calibrate.kernels.library import TRITON, Needs
from sim.catalog import Model

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)

BIAS_SPREAD = 0.1
"""Standard deviation of the random load-balancing bias; affinities lie in 0 to 1."""


def make_gate(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Router logits float32 [tokens, experts] and the bias float32 [experts]."""
    del device
    tokens, experts, where = case.size("tokens"), case.size("experts"), generator.device
    return {
        "logits": torch.randn(tokens, experts, generator=generator, device=where),
        "bias": BIAS_SPREAD * torch.randn(experts, generator=generator, device=where),
    }


def select_experts(logits: Tensor, bias: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """Gate of a model: logits [t, experts], bias [experts] -> experts int64 [t, top_k], weights [t, top_k], sum 1."""
    affinity = logits.sigmoid()
    biased = affinity + bias
    if model.n_group > 1:
        groups = biased.unflatten(-1, (model.n_group, -1))
        best = groups.topk(2, -1).values.sum(-1).topk(model.topk_group, -1).indices
        kept = torch.zeros(best.shape[0], model.n_group, dtype=torch.bool, device=logits.device)
        biased = groups.masked_fill(~kept.scatter_(1, best, True).unsqueeze(-1), float("-inf")).flatten(1)
    chosen = biased.topk(model.top_k, -1).indices
    weights = affinity.gather(1, chosen)
    return chosen, weights / weights.sum(-1, keepdim=True)


def _dense(chosen: Tensor, weights: Tensor, experts: int) -> Tensor:
    """Normalised weights as a matrix [t, experts], so that the order of the experts does not matter."""
    weights = weights.double() / weights.double().sum(-1, keepdim=True)
    empty = torch.zeros(len(chosen), experts, dtype=torch.float64, device=chosen.device)
    return empty.scatter_(1, chosen.long(), weights)


def gate_error(case: Case, tensors: Tensors, output: tuple[Tensor, Tensor]) -> float:
    """Error of the sampled tokens' weights over all experts."""
    rows = sample_rows(case.size("tokens"), output[0].device)
    expected = select_experts(tensors["logits"][rows].double(), tensors["bias"].double(), case.model)
    experts = case.size("experts")
    return difference(_dense(output[0][rows], output[1][rows], experts), _dense(*expected, experts))


def _torch_gate(case: Case, tensors: Tensors) -> Call:
    return lambda: select_experts(tensors["logits"], tensors["bias"], case.model)


_SGL = Needs(("sgl_kernel",), ("moe_fused_gate",))
_VLLM = Needs(("vllm._custom_ops",), ("grouped_topk",))
SIGMOID = 1
"""vLLM's number of the scoring function that turns logits into affinities (`vllm/_custom_ops.py`)."""
_FLASHINFER = Needs(("flashinfer.fused_moe",), ("fused_topk_deepseek",))


def _sgl_gate(case: Case, tensors: Tensors) -> Call:
    (gate,) = _SGL.load()
    model = case.model

    def run() -> tuple[Tensor, Tensor]:
        weights, chosen = gate(
            tensors["logits"], tensors["bias"], model.n_group, model.topk_group, model.top_k
        )
        return chosen, weights

    return run


def _flashinfer_gate(case: Case, tensors: Tensors) -> Call:
    (gate,) = _FLASHINFER.load()
    model, device = case.model, tensors["logits"].device
    weights = torch.empty(case.size("tokens"), model.top_k, device=device)
    chosen = torch.empty(case.size("tokens"), model.top_k, dtype=torch.int32, device=device)

    def run() -> tuple[Tensor, Tensor]:
        gate(
            tensors["logits"],
            tensors["bias"],
            model.n_group,
            model.topk_group,
            model.top_k,
            1.0,
            weights,
            chosen,
        )
        return chosen, weights

    return run


def _vllm_gate(case: Case, tensors: Tensors) -> Call:
    (gate,) = _VLLM.load()
    model = case.model
    groups = (model.n_group, model.topk_group, model.top_k)

    def run() -> tuple[Tensor, Tensor]:
        weights, chosen = gate(tensors["logits"], *groups, True, 1.0, tensors["bias"], SIGMOID)
        return chosen, weights

    return run


def _triton_gate(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_routing import select

    model, device = case.model, tensors["logits"].device
    weights = poisoned(case.size("tokens"), model.top_k, dtype=torch.float32, device=device)
    chosen = torch.empty(case.size("tokens"), model.top_k, dtype=torch.int32, device=device)
    groups, kept = (model.n_group, model.topk_group) if model.n_group > 1 else (1, 1)
    return lambda: select(tensors["logits"], tensors["bias"], groups, kept, chosen, weights)


def _powers_of_two(case: Case) -> str | None:
    sizes = (case.size("experts"), max(1, case.model.n_group), case.model.top_k)
    odd = [size for size in sizes if size & (size - 1)]
    return f"takes powers of two of experts, groups and chosen ones, not {odd[0]}" if odd else None


def _grouped(case: Case) -> str | None:
    return None if case.model.n_group > 1 else "takes a gate with groups"


def _with_bias(case: Case) -> str | None:
    """Earlier releases take scores with the bias added, in another order of arguments."""
    with contextlib.suppress(ImportError):  # where it is missing, that is the reason
        (gate,) = _VLLM.load()
        if "bias" not in inspect.signature(gate).parameters:
            return "has a grouped_topk that takes no bias"
    return _grouped(case)


MOE_GATE = Family(
    kernel="moe_gate",
    make=make_gate,
    error=gate_error,
    tolerance=1e-6,
    backends=(
        Backend("sgl_kernel", _sgl_gate, _SGL, capabilities=(HOPPER, BLACKWELL), limits=_grouped),
        Backend(
            "flashinfer", _flashinfer_gate, _FLASHINFER, capabilities=(HOPPER, BLACKWELL),
            limits=_grouped,
        ),
        Backend("vllm", _vllm_gate, _VLLM, capabilities=(HOPPER, BLACKWELL), limits=_with_bias),
        Backend(
            "triton", _triton_gate, TRITON, capabilities=(HOPPER, BLACKWELL), limits=_powers_of_two
        ),
        Backend("torch", _torch_gate, cpu=True),
    ),
)  # fmt: skip


def make_permute(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Tokens x [tokens, hidden] and the experts each chose, int64 [tokens, top_k]."""
    del device
    tokens, experts, top_k = case.size("tokens"), case.size("experts"), case.size("top_k")
    order = torch.rand(tokens, experts, generator=generator, device=generator.device)
    return {
        "x": randn(tokens, case.size("hidden"), generator=generator),
        "chosen": order.topk(top_k, -1).indices,
    }


def sort_rows(x: Tensor, chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Copies of the tokens sorted by expert, tokens of an expert in order: [t * k, hidden], and counts [experts]."""
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = torch.zeros(experts, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat))
    return x[order // chosen.shape[1]], counts


def permute_error(case: Case, tensors: Tensors, output: tuple[Tensor, Tensor]) -> float:
    """Share of wrong rows among those of the sampled experts, against a scan of the tokens one expert at a time."""
    rows, counts = output
    ends = counts.cumsum(0).tolist()
    wrong = abs(len(rows) - tensors["chosen"].numel())
    for expert in sample_rows(case.size("experts"), rows.device).tolist():
        mine = tensors["x"][(tensors["chosen"] == expert).any(1)]
        found = rows[ends[expert] - int(counts[expert]) : ends[expert]]
        wrong += 0 if torch.equal(found, mine) else max(len(mine), 1)
    return wrong / tensors["chosen"].numel()


def _torch_permute(case: Case, tensors: Tensors) -> Call:
    return lambda: sort_rows(tensors["x"], tensors["chosen"], case.size("experts"))


def _triton_permute(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_routing import permute

    x, chosen = tensors["x"], tensors["chosen"].int()
    counts = torch.empty(case.size("experts"), dtype=torch.int32, device=x.device)
    positions = torch.empty(chosen.shape, dtype=torch.int32, device=x.device)
    rows = poisoned(chosen.numel(), x.shape[1], dtype=x.dtype, device=x.device)

    def run() -> tuple[Tensor, Tensor]:
        permute(x, chosen, counts, positions, rows)
        return rows, counts

    return run


MOE_PERMUTE = Family(
    kernel="moe_permute",
    make=make_permute,
    error=permute_error,
    tolerance=0.0,
    backends=(
        Backend("triton", _triton_permute, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_permute, cpu=True),
    ),
)


def make_finalise(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Rows of the experts [t k, hidden], where each token's are, int32 [t, k], and their weights [t, k], sum 1."""
    del device
    tokens, top_k, where = case.size("tokens"), case.size("top_k"), generator.device
    places = torch.randperm(tokens * top_k, generator=generator, device=where)
    weights = torch.rand(tokens, top_k, generator=generator, device=where) + BIAS_SPREAD
    return {
        "rows": randn(tokens * top_k, case.size("hidden"), generator=generator),
        "positions": places.int().view(tokens, top_k),
        "weights": weights / weights.sum(-1, keepdim=True),
    }


def finalise_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled tokens' sums."""
    if not finite(output):
        return float("inf")
    chosen = sample_rows(case.size("tokens"), output.device)
    rows = tensors["rows"][tensors["positions"][chosen].long()].double()
    return difference(output[chosen], torch.einsum("tk,tkh->th", tensors["weights"][chosen].double(), rows))


def _torch_finalise(case: Case, tensors: Tensors) -> Call:
    del case
    rows, places = tensors["rows"], tensors["positions"].long()
    weights = tensors["weights"].to(rows.dtype).unsqueeze(1)
    return lambda: torch.bmm(weights, rows[places]).squeeze(1)


def _triton_finalise(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_routing import finalise

    rows = tensors["rows"]
    output = poisoned(case.size("tokens"), case.size("hidden"), dtype=rows.dtype, device=rows.device)
    return lambda: finalise(rows, tensors["positions"], tensors["weights"], output)


MOE_FINALISE = Family(
    kernel="moe_finalise",
    make=make_finalise,
    error=finalise_error,
    tolerance=2e-5,
    backends=(
        Backend("triton", _triton_finalise, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_finalise, cpu=True),
    ),
)
