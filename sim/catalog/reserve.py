"""What an engine keeps free of weights and KV cache on a GPU: activations, CUDA graphs, buffers; by its release."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sim.frozen import Frozen

MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Work:
    """What one GPU of a pool does, as far as a reserve depends on it."""

    role: str
    memory_bytes: float
    gpus: int
    """Of the worker."""
    ranks: int
    """Attention-DP ranks of the worker."""
    all_to_all: bool
    """Whether experts are exchanged through all-to-all buffers."""
    chunk_tokens: int
    """New prompt tokens of a rank in one step at most."""
    sequences: int
    """Running sequences of a rank at most."""
    drafts: int = 0
    prefill_graphs: bool = False
    """Whether the engine would capture prompts too, on this GPU and of this model, if the layout let it."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """The rule of one release; the equation heads `engines/common.yaml`. MiB, as engines write them."""

    floor: float = 0.0
    fixed: Mapping[float, float] = field(default_factory=Frozen)
    """By least GPU memory, in bytes."""
    per_gpu: Mapping[float, float] = field(default_factory=Frozen)
    """Per GPU of the worker, by least GPU memory."""
    per_token: float = 0.0
    min_tokens: int = 0
    captured: Mapping[float, int] = field(default_factory=Frozen)
    """Sequences of the largest decode batch that is captured by default, by least GPUs of the worker; none: as many
    as run."""
    per_sequence: float = 0.0
    per_sequence_and_rank: float = 0.0
    """With attention DP, beside `per_sequence`."""
    wide_from: int = 0
    per_sequence_and_rank_wide: float = 0.0
    """The same again where more than `wide_from` sequences are captured."""
    ranks: float = 0.0
    """With attention DP."""
    prefill_graphs: float = 0.0
    drafts: float = 0.0
    all_to_all: float = 0.0
    by_role: bool = False
    """Whether pools of only prompts or only decoding get the part of the rule that concerns them."""

    def bytes(self, work: Work) -> float:
        """GPU memory kept for a pool's work, bytes."""
        decoding = work.sequences * (1 + work.drafts)
        tokens = {"prefill": work.chunk_tokens, "decode": decoding}.get(
            work.role if self.by_role else "", max(work.chunk_tokens, decoding)
        )
        working = (
            _by_least(self.fixed, work.memory_bytes)
            + _by_least(self.per_gpu, work.memory_bytes) * work.gpus
            + self.per_token * max(tokens, self.min_tokens)
            + (0.0 if self.by_role and work.role == "prefill" else self._graphs(work))
            + (self.ranks if work.ranks > 1 else 0.0)
        )
        if work.prefill_graphs and work.role == "serve" and work.ranks == 1:
            working += self.prefill_graphs
        beyond = (self.drafts if work.drafts else 0.0) + (self.all_to_all if work.all_to_all else 0.0)
        return (max(self.floor, working) + beyond) * MIB

    def _graphs(self, work: Work) -> float:
        """CUDA graphs of decode steps, MiB.

        Where experts are exchanged all to all, graphs are captured for what runs, and what attention DP adds is left
        out: by default both would exceed an H100 at EP72, and published recipes set their own.
        """
        default = int(_by_least(self.captured, work.gpus)) or work.sequences
        if work.all_to_all:
            return self.per_sequence * min(default, work.sequences)
        graphs = self.per_sequence * default
        if work.ranks > 1:
            graphs += self.per_sequence_and_rank * default * work.ranks
            wide = default > self.wide_from
            graphs += self.per_sequence_and_rank_wide * default * work.ranks if wide else 0.0
        return graphs


def _by_least(values: Mapping[float, float], size: float) -> float:
    """The value of the largest key that `size` reaches; 0 where there is none."""
    reached = [least for least in values if least <= size]
    return values[max(reached)] if reached else 0.0
