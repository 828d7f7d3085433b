"""Placement: which expert each slot of each rank holds.

Balancing follows the description of DeepSeek's EPLB (V3 report section 3.4 and the README of deepseek-ai/EPLB):
copy the hottest experts, then pack the copies so that ranks with equal numbers of slots carry similar load. The
global policy does so over all ranks at once; the hierarchical one first gives every node whole expert groups, which
keeps the locality of group-limited routing, and then balances inside each node.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Policy = Literal["contiguous", "hierarchical", "global"]


@dataclass(frozen=True, eq=False, slots=True)
class Placement:
    """Slots of the ranks of one EP group, per layer."""

    experts: Ints
    """(layers, slots): the expert that each slot holds; slot s is on rank s // local_slots."""
    ranks: int

    @property
    def local_slots(self) -> int:
        """Slots of one rank."""
        return int(self.experts.shape[1]) // self.ranks

    def of(self, layers: slice) -> "Placement":
        """The placement of some of the layers."""
        return Placement(self.experts[layers], self.ranks)

    def replicas(self) -> Ints:
        """(layers, experts): how many slots hold each expert."""
        layers = len(self.experts)
        experts = int(self.experts.max()) + 1
        flat = self.experts + np.arange(layers)[:, None] * experts
        return np.bincount(flat.ravel(), minlength=layers * experts).reshape(layers, experts)

    def slot_load(self, load: Floats) -> Floats:
        """(layers, slots): the load of each slot, an expert's load (layers, experts) shared evenly by its copies."""
        return np.take_along_axis(load / self.replicas(), self.experts, axis=1)

    def rank_load(self, load: Floats) -> Floats:
        """(layers, ranks): the sum of `slot_load` over each rank's slots."""
        slots = self.slot_load(load)
        return np.asarray(slots.reshape(len(slots), self.ranks, self.local_slots).sum(axis=2))


def contiguous(layers: int, experts: int, ranks: int, redundant: int = 0) -> Placement:
    """Experts in their own order, an equal run per rank; redundant slots repeat the first experts."""
    slots = np.arange(experts + redundant) % experts
    return Placement(np.tile(slots, (layers, 1)), ranks)


def balance(
    load: Floats, ranks: int, redundant: int, rng: np.random.Generator, nodes: int = 1, groups: int = 1
) -> Placement:
    """Replicate and pack for `load` (layers, experts); `nodes` > 1 is the hierarchical policy over `groups`.

    Equal loads have no natural order, so ties are broken by a seeded shuffle: without it, even loads would come
    out in the experts' order and keep a locality that balancing does not give.
    Raises ValueError where nodes do not divide groups, ranks and redundant slots, or ranks do not divide the slots.
    """
    slots = load.shape[1] + redundant
    if slots % ranks:
        raise ValueError(f"{slots} slots do not divide by {ranks} ranks")
    if any(total % nodes for total in (groups, ranks, redundant)):
        raise ValueError(
            f"{nodes} nodes do not divide {groups} groups, {ranks} ranks and {redundant} redundant slots"
        )
    layers, experts = load.shape
    per_node = experts // nodes
    held = rng.permuted(_experts_by_node(load, nodes, groups, rng).reshape(layers * nodes, per_node), axis=1)
    held_load = np.take_along_axis(np.repeat(load, nodes, axis=0), held, axis=1)
    copies = replicate(held_load, redundant // nodes)
    copied = np.repeat(np.tile(np.arange(per_node), layers * nodes), copies.ravel()).reshape(len(held), -1)
    order = pack(np.take_along_axis(held_load / copies, copied, axis=1), ranks // nodes)
    placed = np.take_along_axis(held, np.take_along_axis(copied, order, axis=1), axis=1)
    return Placement(placed.reshape(layers, slots), ranks)


def _experts_by_node(load: Floats, nodes: int, groups: int, rng: np.random.Generator) -> Ints:
    """(layers, experts) in the order of the nodes that hold them: whole groups, packed by their load."""
    layers, experts = load.shape
    size = experts // groups
    shuffled = rng.permuted(np.tile(np.arange(groups), (layers, 1)), axis=1)
    group_load = np.take_along_axis(load.reshape(layers, groups, size).sum(axis=2), shuffled, axis=1)
    by_node = np.take_along_axis(shuffled, pack(group_load, nodes), axis=1)
    members: Ints = by_node[:, :, None] * size + np.arange(size)
    return members.reshape(layers, experts)


def replicate(load: Floats, redundant: int) -> Ints:
    """Copies of each expert (rows, experts): each redundant slot goes to the expert with the most load per copy."""
    copies = np.ones(load.shape, dtype=np.int64)
    rows = np.arange(len(load))
    for _ in range(redundant):
        copies[rows, (load / copies).argmax(axis=1)] += 1
    return copies


def pack(load: Floats, bins: int) -> Ints:
    """Spread items (rows, items) over bins of equal size: heaviest first, each into the lightest bin with room.

    Returns (rows, items): the items in the order of their bins, items / bins at a time.
    """
    rows, items = load.shape
    room = items // bins
    heaviest_first = np.argsort(-load, axis=1, kind="stable")
    row = np.arange(rows)
    weight = np.zeros((rows, bins))
    filled = np.zeros((rows, bins), dtype=np.int64)
    packed = np.empty((rows, items), dtype=np.int64)
    for item in heaviest_first.T:
        lightest = np.where(filled < room, weight, np.inf).argmin(axis=1)
        packed[row, lightest * room + filled[row, lightest]] = item
        weight[row, lightest] += load[row, item]
        filled[row, lightest] += 1
    return packed


def moved_slots(before: Placement, after: Placement) -> float:
    """Slots of a rank whose expert the rank did not hold before, mean over ranks and layers.

    Re-balancing fetches that many experts' weights per rank and layer.
    """
    old = before.experts.reshape(len(before.experts), before.ranks, 1, before.local_slots)
    new = after.experts.reshape(len(after.experts), after.ranks, after.local_slots, 1)
    return float((new != old).all(axis=3).sum(axis=2).mean())
