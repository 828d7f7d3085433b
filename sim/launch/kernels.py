"""Kernels of the routed experts: what engines call them, and what the profiles' tables do.

MegaMoE is both kernels and exchange: SGLang names it where it names the exchange (`--moe-a2a-backend`), vLLM and
TensorRT-LLM where they name the kernels.
"""

from collections.abc import Mapping
from typing import Final

from sim.launch.derived import Derived
from sim.model.layout import MEGA_MOE

BACKENDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("flashinfer_trtllm", "flashinfer_trtllm_routed", "flashinfer_mxfp4", "trtllm"), "trtllm_gen"),
    **dict.fromkeys(("flashinfer_cutlass", "cutlass"), "cutlass"),
    **dict.fromkeys(("deep_gemm", "deepgemm"), "deepgemm"),
    "triton": "triton",
    **dict.fromkeys(
        ("deep_gemm_mega_moe", "megamoe", "megamoe_deepgemm", "flashinfer_moe_ep_mega_deep_gemm"), MEGA_MOE
    ),
}  # fmt: skip
"""What engines call kernels -> what the tables do. FlashInfer's `deep_gemm_mega` is DeepGEMM's own kernel."""
NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "sglang": {"trtllm_gen": "flashinfer_trtllm", "cutlass": "flashinfer_cutlass", "deepgemm": "deep_gemm"},
    "vllm": {
        "trtllm_gen": "flashinfer_trtllm", "cutlass": "flashinfer_cutlass", "deepgemm": "deep_gemm",
        MEGA_MOE: "deep_gemm_mega_moe",
    },
    "trtllm": {
        "trtllm_gen": "TRTLLM", "cutlass": "CUTLASS", "deepgemm": "DEEPGEMM", "triton": "TRITON",
        MEGA_MOE: "MEGAMOE_DEEPGEMM",
    },
}  # fmt: skip
"""By engine, what the tables call kernels -> what the engine does, where it is another name."""


def plain(asked: object) -> str:
    """A name as the engines compare it."""
    return str(asked or "").lower().replace("-", "_")


def exchange(asked: object) -> bool:
    """Whether kernels of that name send tokens to their experts and back themselves: every MegaMoE does."""
    return "mega" in plain(asked)


def read(found: Derived, asked: object, said: str) -> None:
    """The pool's kernels of the routed experts."""
    name = plain(asked)
    if name in BACKENDS:
        found.put("moe_backend", BACKENDS[name], said, "moe_backend", "a2a", "kernel_config", "mega_moe")
    elif name not in ("auto", "none", ""):
        found.tell(said, "these kernels of the experts were not measured; the profile's choice is taken")


def written(engine: str, name: str, weights: str) -> str | None:
    """What an engine calls kernels of the tables; None where no flag names them."""
    if engine == "sglang" and (name, weights) == ("trtllm_gen", "mxfp4"):
        return "flashinfer_mxfp4"
    theirs = NAMES[engine].get(name, name)
    return theirs if BACKENDS.get(plain(theirs)) == name else None
