"""The pools of a published deployment: how many workers, of how many GPUs, and how each is parallelised."""

from collections.abc import Mapping
from dataclasses import dataclass

from sim.validation.cells import Cells


@dataclass(frozen=True, slots=True)
class Shape:
    """Identical workers of one pool."""

    workers: int
    gpus: int
    """Of one worker."""
    ep: int
    dp_attention: bool

    @property
    def tp(self) -> int:
        """Tensor parallelism of the attention: all GPUs, or one with attention data parallelism."""
        return 1 if self.dp_attention else self.gpus

    @property
    def divides(self) -> bool:
        """Whether it is a layout at all."""
        return min(self.workers, self.gpus) >= 1 and not self.gpus % self.ep

    def __str__(self) -> str:
        return f"EP{self.ep}{f' DP{self.gpus}' if self.dp_attention else ''}"


def aggregated(cells: Cells) -> Mapping[str, Shape]:
    """One worker that does both."""
    gpus = cells.count("total_gpu", cells.count("decode_tp", 0))
    ep = max(1, cells.count("decode_ep", 1))
    return {"serve": Shape(1, gpus, ep, cells.flag("decode_dp_attn", False))}


def disaggregated(cells: Cells) -> Mapping[str, Shape]:
    """Several workers of each kind; a worker of 0 GPUs where those of a pool make no whole workers."""
    return {role: _pool(cells, role) for role in ("prefill", "decode")}


def _pool(cells: Cells, role: str) -> Shape:
    """TP1 EP1 with attention DP on several GPUs is how a label tells attention DP, and EP, over all of them."""
    width, ep = cells.count(f"{role}_tp", 0), max(1, cells.count(f"{role}_ep", 1))
    gpus = cells.count(f"num_{role}_gpu", width)
    workers = cells.count(f"{role}_workers", gpus // width if width else 0)
    each = gpus // workers if workers and gpus % workers == 0 else 0
    spread = cells.flag(f"{role}_dp_attn", False)
    return Shape(workers, each, each if spread and width == ep == 1 else ep, spread)
