"""Serving engines: what their defaults do to chunks, memory, overlap and admission."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from sim.catalog.facts import read, resolve, values

DispatchMode = Literal["normal", "low_latency"]
BatchSchedule = Literal["alternating", "staged"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One serving engine with its defaults."""

    name: str
    chunk_tokens: Mapping[float, int]
    """New prompt tokens per attention-DP rank and step, by least GPU memory in bytes; see `chunk_for`."""
    dsa_dense_threshold: int
    """DSA models prefill with masked MHA while the longest KV of the batch is at most this many tokens."""
    index_logits_bytes: float
    """Memory of DSA's index logits: a prompt's queries are scored in chunks that fit. 0: no limit."""
    mixes_prefill_with_decode: bool
    """Whether an aggregated step may hold prompt chunks and decoding sequences together."""
    kv_transfer_overlap: Literal["layer", "chunk", "none"]
    """What hides the KV transfer: later layers, later chunks, or nothing."""
    prefill_dispatch: DispatchMode
    decode_dispatch: DispatchMode
    shared_expert_overlap_prefill: bool
    shared_expert_overlap_decode: bool
    two_batch_overlap_prefill: bool
    two_batch_overlap_decode: bool
    two_batch_schedule_prefill: BatchSchedule
    """In which order two half batches take turns, where they do; see `sim.step.overlap`."""
    two_batch_schedule_decode: BatchSchedule
    admission_interval_steps: int
    """Decode steps between looks for new requests."""
    admission_wait_steps: int
    """Steps that a prompt may wait until every attention-DP rank has one."""
    admission_growth_tokens: int
    """KV tokens kept free for each running sequence when another one is let in."""
    host_overhead_s: float
    """Per step."""
    fixed_ttft_aggregated_s: float
    """Part of every TTFT that no kernel explains: HTTP, tokenizer, first scheduling."""
    fixed_ttft_disaggregated_s: float
    """The same with a router and a KV handshake."""
    small_op_s: float
    """Per layer and step, beyond the operations that are listed one by one."""
    communication_factor: float
    """Collectives in a running engine over the same collectives measured back to back."""
    exchange_contention: float
    """DeepEP's normal mode beside a computing half batch, over the same exchange alone."""
    cuda_graphs: bool
    """Whether CUDA graphs launch a whole decode step."""
    launch_s: float
    """What launching one listed operation costs the host without CUDA graphs."""
    prefill_graph_tokens: int
    """Largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch; the host launches others."""
    prefill_graph_excludes: tuple[str, ...]
    """Where even those have none; the names are those of `sim.step.assemble.graph_tokens`."""
    draft_host_s: float
    """Host time of a decode step with drafts, on top of `host_overhead_s`, that no kernel hides."""
    memory_flag: Literal["static", "total", "free"]
    """What a scenario's `memory_fraction` means: weights and KV cache, everything, or KV cache of what is left."""
    memory_fraction: float
    """Share of the GPU memory that the engine may use at all."""
    kv_fraction_of_free: float
    """Share of what weights and reserve leave that becomes KV cache."""
    kv_block_tokens: int
    """Tokens of one KV block."""
    reserve_floor_bytes: float
    reserve_fixed_bytes: float
    reserve_per_token_bytes: float
    reserve_min_tokens: int
    reserve_per_gpu_bytes: float
    reserve_per_sequence_bytes: float
    reserve_all_to_all_bytes: float

    def chunk_for(self, memory_bytes: float) -> int:
        """Default chunk, in tokens, on a GPU with that much memory."""
        return self.chunk_tokens[max(least for least in self.chunk_tokens if least <= memory_bytes)]

    def reserve_bytes(self, step_tokens: float, gpus: int, sequences: int, all_to_all: bool) -> float:
        """GPU memory kept for activations, graphs and buffers, bytes; the equation heads engines.yaml.

        `step_tokens`: most tokens of one rank in one step. `gpus`: of the worker. `sequences`: most that decode on
        one rank. `all_to_all`: whether experts are exchanged through all-to-all buffers.
        """
        working = (
            self.reserve_fixed_bytes
            + self.reserve_per_token_bytes * max(step_tokens, self.reserve_min_tokens)
            + self.reserve_per_gpu_bytes * gpus
            + self.reserve_per_sequence_bytes * sequences
        )
        return max(self.reserve_floor_bytes, working) + (self.reserve_all_to_all_bytes if all_to_all else 0.0)


@cache
def engine(name: str, release: str | None = None) -> Engine:
    """The engine of that name, as of the release whose kernels were measured or, if earlier, of the one given.

    Raises UnknownName.
    """
    engines = read("engines.yaml")["engines"]
    key = resolve("engine", name, engines, {})
    facts = values(engines[key])
    older = values(read("engines.yaml")["before"].get(key, {}))
    for later in sorted(older, key=_numbers, reverse=True):
        if release is not None and _numbers(release) < _numbers(later):
            facts |= older[later]
    facts["prefill_graph_excludes"] = tuple(facts["prefill_graph_excludes"])
    return Engine(name=key, **{**facts, "chunk_tokens": MappingProxyType(facts["chunk_tokens"])})


def _numbers(release: str) -> tuple[int, ...]:
    """`0.5.6.post1` -> (0, 5, 6, 1): releases in their order."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def engine_names() -> tuple[str, ...]:
    """The catalog's engines."""
    return tuple(read("engines.yaml")["engines"])
