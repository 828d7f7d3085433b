"""The front door: a deployment of experts -> the load of its hottest rank and the reach of its tokens, by token count.

The table holds expected values, so that a simulation needs no sample per step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.catalog import DispatchMode, Model
from sim.experts.gate import draw_choices
from sim.experts.placement import Placement, Policy, balance, contiguous, moved_slots
from sim.experts.popularity import counted_popularity, drift, lognormal_popularity, selection_probability
from sim.experts.routing import (
    Copies,
    Touched,
    choose_slots,
    copies,
    expected_imbalance,
    imbalance_table,
    node_sizes,
    touched_by,
    touched_evenly,
)
from sim.scenario.schema import Experts

Floats = NDArray[np.float64]

LAYER_DRAWS = 4
"""Every MoE layer is drawn this often: the table estimates an expectation, not the fate of one draw of the layers."""
ROUTED_TOKENS = 16_384
"""Tokens sent through the gate to find what a token touches; their mean is good to about 0.2%."""
LARGEST_TOKENS_PER_RANK = 32_768
"""End of the default grid; beyond it the imbalance has reached the limit of many tokens."""


@dataclass(frozen=True, eq=False, slots=True)
class LoadTable:
    """Load and traffic of one MoE layer (the mean over the MoE layers) of one EP group.

    `tokens` is always tokens per attention-DP rank, scalar or array, fractions allowed; results have its shape.
    """

    ep: int
    dp: int
    """Attention-DP ranks that feed the group: `dp` x tokens enter each MoE layer."""
    local_slots: int
    """Experts that each rank holds."""
    tokens_grid: Floats
    imbalance_grid: Floats
    """Hottest rank / mean rank at each point of `tokens_grid`."""
    limit: float
    """Hottest rank / mean rank of the expected load: where `imbalance_grid` tends to."""
    hot_selection: Floats
    """(layers, local_slots): chance that a token chooses each slot of the layer's hottest rank."""
    touched: Touched
    gpu_skew: float
    """Tokens that reach a rank, each once: the most loaded rank's over the mean, of the expected load."""
    moved_slots: float
    """Slots per rank and layer whose expert changes when a stale placement is brought up to date."""

    def mean_rows(self, tokens: ArrayLike) -> Floats:
        """Token-expert pairs per rank: tokens x pairs x dp / ep."""
        return np.asarray(tokens, dtype=np.float64) * self.touched.pairs * self.dp / self.ep

    def imbalance(self, tokens: ArrayLike) -> Floats:
        """Hottest rank / mean rank, interpolated in its logarithm over log tokens; constant outside the grid."""
        inside = np.clip(np.asarray(tokens, dtype=np.float64), self.tokens_grid[0], self.tokens_grid[-1])
        return np.exp(np.interp(np.log(inside), np.log(self.tokens_grid), np.log(self.imbalance_grid)))

    def hottest_rows(self, tokens: ArrayLike) -> Floats:
        """Expected token-expert pairs on the hottest rank: mean over layers of each layer's maximum over ranks."""
        return self.mean_rows(tokens) * self.imbalance(tokens)

    def active_experts(self, tokens: ArrayLike) -> Floats:
        """Expected slots of the hottest rank that receive at least one token, whose weights must be read.

            sum over its slots s of 1 - (1 - q_s)^(dp x tokens x f)

        q_s: chance that one token chooses the slot; f = imbalance / limit: how much busier than its expectation
        the hottest rank is by chance. Even popularity gives local_slots x (1 - (1 - top_k / experts)^N).
        Works on (tokens, layers, slots) at once: call it on a grid, not on thousands of steps.
        """
        total = np.asarray(tokens, dtype=np.float64) * self.dp * (self.imbalance(tokens) / self.limit)
        missed = np.power(1.0 - self.hot_selection, total[..., None, None])
        return np.asarray((1.0 - missed).sum(axis=-1).mean(axis=-1), dtype=np.float64)

    def skew(self, tokens: ArrayLike, mode: DispatchMode, rdma_per_nvlink: float = 1.0) -> Floats:
        """How many times as long an exchange lasts as one with evenly loaded ranks, who all receive and send the mean.

        low_latency: every pair is a copy of its own, so that the hottest rank's NIC carries `imbalance` times the mean.
        normal: a node's NICs carry each token once (`node_skew`), and so does NVLink to a rank (`gpu_skew`); the slower
        network decides. rdma_per_nvlink: seconds per byte of RDMA over those of NVLink.
        """
        if mode == "low_latency":
            return self.imbalance(tokens)
        sent = self.copies(mode)
        rdma, nvlink = sent.rdma * rdma_per_nvlink, sent.nvlink
        even, uneven = max(rdma, nvlink), max(rdma * self.touched.node_skew, nvlink * self.gpu_skew)
        return np.full(np.shape(tokens), uneven / even if even else 1.0)

    def copies(self, mode: DispatchMode) -> Copies:
        """Copies of a token's hidden state that cross RDMA and NVLink, per token and direction."""
        return copies(self.touched, mode)

    @property
    def nodes_touched(self) -> float:
        """Distinct nodes that a token reaches, its own included where it holds a chosen expert."""
        return self.touched.nodes

    @property
    def remote_nodes(self) -> float:
        """Distinct nodes that a token reaches, its own left out."""
        return self.touched.remote_nodes

    @property
    def gpus_touched(self) -> float:
        """Distinct GPUs that a token reaches."""
        return self.touched.gpus


def expert_load(
    model: Model,
    *,
    ep: int,
    gpus_per_node: int,
    experts: Experts,
    dp: int | None = None,
    counts: Floats | None = None,
    policy: Policy | None = None,
    shared_as_slot: bool = False,
    tokens_grid: Sequence[float] | None = None,
    seed: int = 0,
) -> LoadTable:
    """Load and traffic of `model`'s routed experts over an EP group.

    ep: ranks of the group. gpus_per_node: those of them that share a scale-up domain (8; 72 for NVL72); where
        experts are also split over MoE tensor parallelism, pass the domain divided by it.
    dp: attention-DP ranks that feed the group (default: one per EP rank).
    counts: recorded (MoE layers, experts) token counts instead of the lognormal popularity; see `recorded.read_counts`.
    policy: default `default_policy`.
    shared_as_slot: place the shared expert among the routed ones, chosen by every token, instead of a replica on
        every rank (V3 report section 3.4.2 does so in decode).
    Raises ValueError where the slots do not divide by `ep`, or the gate or the recording does not suit the model.

    Even popularity (sigma 0 and no counts) means exactly its share for every expert, without sampling noise.
    """
    dp = dp or ep
    policy = policy or default_policy(model, ep, gpus_per_node, experts, shared_as_slot)
    nodes = len(node_sizes(ep, gpus_per_node)) if policy == "hierarchical" else 1
    _check(model, ep, nodes, experts, counts, shared_as_slot)
    popularity_rng, stale_rng, pack_rng, gate_rng, noise_rng = np.random.default_rng(seed).spawn(5)
    even = counts is None and experts.even
    plain = even and policy == "contiguous" and not experts.redundant and not shared_as_slot

    popularity = _popularity(model, experts, counts, 1 if plain else LAYER_DRAWS, popularity_rng)
    live = _selection(model, popularity, shared_as_slot)
    stale = live
    if experts.staleness_rho < 1.0 and not even:
        stale = _selection(model, drift(popularity, experts.staleness_rho, stale_rng), shared_as_slot)

    def place(load: Floats) -> Placement:
        if policy == "contiguous":
            return contiguous(len(load), load.shape[1], ep, experts.redundant)
        return balance(load, ep, experts.redundant, pack_rng, nodes, model.n_group if nodes > 1 else 1)

    placement = place(stale)
    rank_load = placement.rank_load(live)
    limit = expected_imbalance(rank_load)
    grid = _default_grid(dp) if tokens_grid is None else np.asarray(tokens_grid, dtype=np.float64)
    if even:
        imbalance = np.full(grid.shape, limit)
    else:
        pairs = [max(1, round(tokens * dp)) * (model.top_k + shared_as_slot) for tokens in grid]
        imbalance = imbalance_table(rank_load, pairs, noise_rng)
    if ep == 1 or (plain and experts.node_limit is None):  # one rank is reached whatever tokens choose
        touched = touched_evenly(
            model.n_routed + shared_as_slot, model.top_k + shared_as_slot, ep, gpus_per_node
        )
    else:
        drawn = slice(0, model.moe_layers)  # fewer layers, more tokens of each: enough to tell node from node
        touched = _route(model, live[drawn], placement.of(drawn), gpus_per_node, experts.node_limit, gate_rng)
        touched = replace(touched, node_skew=1.0) if even else touched
    slot_load = placement.slot_load(live).reshape(len(live), ep, placement.local_slots)
    reached = 1.0 - np.prod(1.0 - slot_load, axis=2)
    return LoadTable(
        ep=ep,
        dp=dp,
        local_slots=placement.local_slots,
        tokens_grid=grid,
        imbalance_grid=imbalance,
        limit=limit,
        hot_selection=slot_load[np.arange(len(live)), rank_load.argmax(axis=1)],
        touched=touched,
        gpu_skew=1.0 if even else expected_imbalance(reached),
        moved_slots=0.0 if stale is live else moved_slots(placement, place(live)),
    )


def default_policy(
    model: Model, ep: int, gpus_per_node: int, experts: Experts, shared_as_slot: bool = False
) -> Policy:
    """Contiguous without redundant experts; with them hierarchical where it keeps the gate's locality, else global.

    Hierarchical needs a group limit to exploit, and whole groups, ranks and replicas per node (README of EPLB:
    "when the number of server nodes divides the number of expert groups").
    """
    if experts.redundant == 0:
        return "contiguous"
    nodes = len(node_sizes(ep, gpus_per_node))
    whole = not any(total % nodes for total in (model.n_group, ep, experts.redundant))
    return "hierarchical" if experts.node_limit and nodes > 1 and whole and not shared_as_slot else "global"


def _check(
    model: Model, ep: int, nodes: int, experts: Experts, counts: Floats | None, shared_as_slot: bool
) -> None:
    """Raises ValueError where model, group and settings do not suit each other."""
    slots = model.n_routed + shared_as_slot + experts.redundant
    if slots % ep:
        raise ValueError(f"{slots} expert slots ({experts.redundant} redundant) do not divide by ep {ep}")
    if experts.node_limit is not None and not 1 <= experts.node_limit <= model.n_group:
        raise ValueError(
            f"node_limit {experts.node_limit}: {model.name} has {model.n_group} group(s) of experts; "
            f"expected at most that many"
        )
    if counts is not None and np.shape(counts)[1:] != (model.n_routed,):
        raise ValueError(f"recorded counts {np.shape(counts)}: expected (layers, {model.n_routed})")
    if nodes > 1 and shared_as_slot:
        raise ValueError("the hierarchical policy places whole groups: the shared expert belongs to none")


def _popularity(
    model: Model, experts: Experts, counts: Floats | None, draws: int, rng: np.random.Generator
) -> Floats:
    if counts is not None:
        return np.tile(counted_popularity(counts), (draws, 1))
    return lognormal_popularity(experts.sigma, model.moe_layers * draws, model.n_routed, rng)


def _selection(model: Model, popularity: Floats, shared_as_slot: bool) -> Floats:
    """Chance per token of each expert; the shared expert, if routed, is a last column that is always chosen."""
    chance = selection_probability(popularity, model.top_k)
    if not shared_as_slot:
        return chance
    return np.concatenate([chance, np.ones((len(chance), 1))], axis=1)


def _route(
    model: Model,
    selection: Floats,
    placement: Placement,
    gpus_per_node: int,
    node_limit: int | None,
    rng: np.random.Generator,
) -> Touched:
    """Sends a sample of tokens through the gate and follows their copies."""
    layers = len(selection)
    tokens = -(-ROUTED_TOKENS // layers)
    routed = selection[:, : model.n_routed]
    choices = draw_choices(routed, model.top_k, tokens, rng, model.n_group, node_limit)
    if selection.shape[1] > model.n_routed:
        shared = np.full((layers, tokens, 1), model.n_routed)
        choices = np.concatenate([choices, shared], axis=2)
    return touched_by(choose_slots(choices, placement, rng), placement, gpus_per_node)


def _default_grid(dp: int) -> Floats:
    """Powers of two of the group's tokens, from a single one up to LARGEST_TOKENS_PER_RANK per rank."""
    doublings = int(np.ceil(np.log2(LARGEST_TOKENS_PER_RANK * dp)))
    return np.asarray(2.0 ** np.arange(doublings + 1) / dp)
