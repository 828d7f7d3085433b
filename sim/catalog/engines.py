"""Serving engines: what their defaults do to chunks, memory, overlap and admission."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sim.catalog.facts import read, resolve, values, version
from sim.catalog.reserve import Reserve, reserve_of
from sim.frozen import Frozen

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
    whole_batch_experts: str
    """Kernels of the routed experts that, with EP inside a TP group, also run over the rows of other ranks' experts;
    `none`: none are known to."""
    exchange_contention: float
    """DeepEP's normal mode beside a computing half batch, over the same exchange alone."""
    cuda_graphs: bool
    """Whether CUDA graphs launch a whole decode step."""
    launch_s: float
    """What launching one listed operation costs the host without CUDA graphs."""
    prefill_graph_tokens: int
    """Largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch; the host launches others."""
    prefill_graph_excludes: tuple[str, ...]
    """Where even those have none; the names are those of `sim.deployment.layouts.graph_tokens`."""
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
    release: str
    runtime_bytes: float
    """In use before weights are loaded; only where the engine's memory flag does not count it."""
    absorbed_weights: str | None
    """Format of the copies of W^UK and W^UV that the absorbed form of MLA keeps; None: there are none."""
    sharding_all_to_all: Mapping[str, Literal["gpu", "rank", "worker"]]
    """What holds one copy of `shared`, `dense_ffn`, `head` and `embedding`; see `sim.model.sharding`."""
    sharding_gathered: Mapping[str, Literal["gpu", "rank", "worker"]]
    """The same where the ranks' tokens are gathered instead."""
    reserve: Reserve

    def chunk_for(self, memory_bytes: float) -> int:
        """Default chunk, in tokens, on a GPU with that much memory."""
        return self.chunk_tokens[max(least for least in self.chunk_tokens if least <= memory_bytes)]


@cache
def engine(name: str, release: str | None = None) -> Engine:
    """The engine of that name or alias, by the rules of a release (None: those of the catalog's; see `release_taken`).

    Memory rules are those of the newest release known that is not newer; else a release older than the measured
    kernels' differs from the catalog's by what `before` lists. Raises UnknownName.
    """
    file = read("engines.yaml")
    engines = file["engines"]
    key = resolve("engine", name, engines, file["aliases"])
    facts = values(engines[key])
    older = values(file["before"].get(key, {}))
    for later in sorted(older, key=version, reverse=True):
        if release is not None and version(release) < version(later):
            facts |= older[later]
    release = release or facts["release"]
    reserve = reserve_of(release, facts.pop("reserves"))
    facts["prefill_graph_excludes"] = tuple(facts["prefill_graph_excludes"])
    mappings = ("chunk_tokens", "sharding_all_to_all", "sharding_gathered")
    frozen = {name: Frozen(facts[name]) for name in mappings}
    return Engine(name=key, **{**facts, **frozen, "release": release, "reserve": reserve})


def release_taken(name: str, release: str) -> str | None:
    """Whose rules stand in for those of a release, in words; None where the release lies among those described.

    An engine whose rule of memory bears the release 0 was described once; else from its oldest rule to `release`.
    Raises UnknownName.
    """
    described = values(read("engines.yaml")["engines"][engine(name).name])
    newest, oldest = described["release"], min(described["reserves"], key=version)
    asked, last, first = version(release), version(newest), version(oldest)
    if asked[: len(last)] == last:
        return None
    if not any(first):
        return f"those of {newest}, the only one described" if any(last) else "assumptions: none is published"
    if asked > last:
        return f"those of {newest}, the newest described"
    return f"those of {oldest}, the oldest described" if asked < first else None


def engine_names() -> tuple[str, ...]:
    """The catalog's engines."""
    return tuple(read("engines.yaml")["engines"])
