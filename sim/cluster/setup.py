"""What a run is given: pools, transfer, rules and requests. Plain numbers, so that anything may compose them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from sim.cluster.life_setup import LifeSetup
from sim.serving.admission import AdmissionRules
from sim.serving.handover import HandoverRules
from sim.serving.kv_blocks import BLOCK_TOKENS
from sim.serving.prefix_cache import Tier
from sim.serving.speculation import Drafting, OneTokenPerStep
from sim.workload import Request


@dataclass(frozen=True)
class PoolSetup:
    """Identical workers, as the scheduler sees them."""

    workers: int
    gpus: int
    """GPUs of one worker."""
    dp: int
    """Attention-DP ranks of one worker."""
    max_sequences: int
    """Sequences per rank at most (decode and serve)."""
    chunk_tokens: int
    """New prompt tokens per rank and step at most (prefill and serve)."""
    kv_blocks: int
    """KV blocks per rank."""
    block_tokens: int = BLOCK_TOKENS
    request_blocks: int = 0
    """KV blocks of each sequence, however long it is: windows, and states of a fixed size."""
    mixed: bool = False
    """serve: prompt tokens ride along in decode steps; otherwise waiting prompts go first and decode pauses."""
    whole_prompts: bool = False
    """A step takes no part of a prompt, unless that is larger than the step (prefill and serve)."""

    def blocks_of(self, tokens: int) -> int:
        """KV blocks of a sequence of `tokens` tokens."""
        return self.request_blocks - (-tokens // self.block_tokens)

    @property
    def longest_tokens(self) -> int:
        """KV tokens of the longest sequence that an empty rank holds."""
        return (self.kv_blocks - self.request_blocks) * self.block_tokens

    @property
    def request_tokens(self) -> int:
        """KV tokens that would take as much as a sequence has beside its own."""
        return self.request_blocks * self.block_tokens


@dataclass(frozen=True)
class TransferSetup:
    """The way of the KV cache from prefill to decode. A rank sends over the NICs of all its GPUs."""

    bytes_per_token: float
    """Of the whole cache, however many GPUs of a rank share or copy it."""
    bytes_per_s: float
    """One GPU's NIC, one direction."""
    latency_s: float
    """From the prompt's last byte to the first token at the client, beside the bytes themselves (handshake)."""
    tail_fraction: float = 1.0
    """Share of the bytes that can only leave when the prefill is over: 1 without overlap, 1 / layers layer by layer."""
    bytes_per_request: float = 0.0
    """Of a sequence beside those of its tokens: windows, and states of a fixed size."""


@dataclass(frozen=True)
class PrefixSetup:
    """The prefix cache of the pool that computes prompts."""

    scope: str
    """What one cache serves: rank | worker | cluster."""
    block_tokens: int
    """Tokens of one of the requests' blocks."""
    tiers: tuple[Tier, ...]
    """The memories of one cache, fastest first: HBM, then what is below it."""
    fetch_s_per_token: tuple[float, ...]
    """By tier."""
    shares_hbm: bool
    """The first tier's capacity is the unit's whole KV budget; the cache has what running sequences leave."""


@dataclass(frozen=True)
class ClusterPlan:
    """Pools by role: `prefill` and `decode` with a transfer, or `serve`."""

    pools: Mapping[str, PoolSetup]
    transfer: TransferSetup | None = None
    rules: AdmissionRules = field(default_factory=AdmissionRules)
    speculation: Drafting = field(default_factory=OneTokenPerStep)
    max_tokens: float = math.inf
    """Prompt and answer at most: the positions of the model."""
    prefixes: PrefixSetup | None = None
    """None: what is cached is the workload's to say."""
    handover: HandoverRules = field(default_factory=HandoverRules)
    life: LifeSetup | None = None
    """None: the workers of the pools are always there."""

    @cached_property
    def most_tokens(self) -> float:
        """Prompt and answer at most that the model takes, and an empty rank of every pool holds (a preempted request is
        computed as a whole)."""
        return min(self.max_tokens, *(pool.longest_tokens for pool in self.pools.values()))


class Requests(Protocol):
    """The workload; see `sim.workload.RequestStream`."""

    def __len__(self) -> int:
        """Requests known from the start."""
        ...

    def __iter__(self) -> Iterator[Request]:
        """The requests known from the start, in order of arrival; those that follow from others have no time (NaN)
        and may be left out."""
        ...

    @property
    def known_until_s(self) -> float:
        """When the last of the requests known from the start arrives; 0 without any."""
        ...

    @property
    def concurrency(self) -> int | None:
        """Closed loop: requests or sessions in flight. None in an open loop."""
        ...

    @property
    def full(self) -> bool:
        """Whether every place of a closed loop was taken again so far; always true in an open loop."""
        ...

    @property
    def ends(self) -> bool:
        """Whether nothing ever follows from requests that leave."""
        ...

    @property
    def most(self) -> int | None:
        """Requests that arrive at most, those that follow included; None: all of them."""
        ...

    def following(self, left: int, now_s: float) -> Sequence[Request]:
        """The requests that arrive because request `left` was completed or rejected at `now_s`; not before then."""
        ...
