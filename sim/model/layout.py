"""How a worker shards a model over its GPUs, and what routing makes of a step."""

from dataclasses import dataclass
from typing import Final, Literal

from sim.catalog import DispatchMode, Model
from sim.kernels.family import Phase as Phase  # noqa: PLC0414 - of a layout, too
from sim.model.sharding import Sharding

Exchange = Literal["all_to_all", "all_gather"]
"""How attention-DP ranks reach the experts: DeepEP-like all-to-all, or all-gather and reduce-scatter."""
GatheredBy = Literal["all_gather", "all_reduce"]
MEGA_MOE: Final = "mega_moe"
"""The back-end of the experts that exchanges tokens inside its kernel."""


@dataclass(frozen=True)
class Layout:
    """How one worker shards a model. `tp` shards attention heads; `ep` spreads routed experts, whose intermediate width
    `moe_tp` = gpus / ep shards; `sharding` has the rest."""

    model: Model
    gpus: int
    tp: int
    ep: int
    gpus_per_node: int
    """GPUs that share the fast link: 8, or 72 in an NVL72 rack."""
    weights: str = "fp8"
    attention_weights: str = "fp8"
    dense_weights: str = "fp8"
    """Of the shared expert and the dense layers' FFN."""
    kv_cache: str = "fp8"
    dense_prefill_max_kv: int = 0
    """DSA runs masked MHA in prefill while no sequence is longer than this (engine threshold)."""
    index_logits_bytes: float = 0.0
    """Memory of the indexer's logits, which bounds the queries that are scored at once; 0: no limit."""
    dispatch_mode: DispatchMode = "normal"
    exchange: Exchange = "all_to_all"
    gathered_by: GatheredBy = "all_gather"
    """How the tokens of attention-DP ranks reach all of them; see `prompts_gathered_by` of `sim.catalog.Engine`."""
    quantised_gather: bool = True
    """NVFP4 experts get tokens that are quantised before they travel."""
    moe_backend: str | None = None
    """Kernels of the routed experts; None: the profile's choice."""
    experts_factor: float = 1.0
    """Routed experts in a running engine over their table."""
    whole_batch_experts: bool = False
    """The experts' kernels also run over the rows of other ranks' experts, where every rank has all tokens."""
    shared_as_slot: bool = False
    """The shared expert is one of the slots that tokens are sent to, not a copy on every GPU."""
    mtp: bool = False
    """The MTP module is loaded: the prompt passes through it, and it has a cache."""
    sharding: Sharding | None = None
    """Of shared expert, dense FFN and head; None: over the GPUs of an attention rank."""

    @property
    def over(self) -> Sharding:
        """GPUs that hold one copy of each part beside attention together."""
        return self.sharding or Sharding.over_ranks(self.tp)

    @property
    def dp(self) -> int:
        """Attention-DP ranks of the worker."""
        return self.gpus // self.tp

    @property
    def moe_tp(self) -> int:
        """GPUs that share one expert."""
        return self.gpus // self.ep

    @property
    def all_to_all(self) -> bool:
        """See `exchanges_all_to_all`."""
        return exchanges_all_to_all(self.exchange, self.gpus, self.tp, self.ep)

    @property
    def exchange_in_experts(self) -> bool:
        """Whether dispatch and combine are part of the experts' kernel."""
        return self.all_to_all and self.nodes == 1 and self.moe_backend == MEGA_MOE

    @property
    def heads(self) -> int:
        """Attention heads per GPU."""
        return self.model.heads // self.tp

    @property
    def nodes(self) -> int:
        """Fast-link domains that the worker spans."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def attention_layers(self) -> int:
        """Layers with a KV cache, the MTP module's included when it is loaded."""
        return sum(group.layers for group in self.model.layer_groups(self.mtp))


def exchanges_all_to_all(exchange: Exchange | None, gpus: int, tp: int, ep: int) -> bool:
    """Whether each token goes to its own experts and back, not all tokens to all GPUs; None: where the layout allows.

    It must have several attention ranks and each expert whole on one GPU: slices of an expert need every token of
    the group, and a sum at the end.
    """
    return exchange != "all_gather" and tp < gpus == ep


@dataclass(frozen=True)
class ExpertRows:
    """What routing makes of a step: the load of the most loaded rank, and how far tokens travel."""

    rows: float
    """Token-expert pairs on the most loaded rank."""
    slots: float
    """Expert slots on a rank."""
    active: float
    """Of these, touched by at least one token."""
    copies: float
    """Copies of a token that leave its GPU in the layout's dispatch mode."""
    remote_copies: float
    """Of these, the ones that cross the NIC to another node."""
    skew: float = 1.0
    """Copies of the most loaded rank over the mean rank's: it receives that many more, and sends them back."""
