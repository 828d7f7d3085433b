"""Collectives that outgrow what was measured: over several nodes, and over a rack's NVLink.

Over nodes NCCL works in a hierarchy: the GPUs of a node reduce over NVLink, every GPU's NIC carries its share to the
other nodes, and the sums are gathered over NVLink. The three are pipelined in chunks, so that the slower link sets the
time of large messages and the hops that of small ones:

    t = hops x hop + max(t_node(S (1 - 1/n) / (1 - 1/g)), t_node(0) + wire / (NICs x NIC))

t_node: the same collective among the g GPUs of one node, from the kernel tables where there are any; a GPU's NVLink
carries (1 - 1/n) S as in a ring of all, so that nothing gets faster by being spread. S: bytes of the tensor. With N
nodes, n = N g:

    tree (all-reduce only)   hops 2 ceil(log2 N)   wire S for 2 nodes, 2 S for more
    ring, all-reduce         hops 2 (N - 1)        wire 2 S (n - 1) / n
    ring, gather or scatter  hops N - 1            wire S (n - 1) / n

A hop of the ring also passes the g - 1 other GPUs of the node that it enters. Each way runs in one of NCCL's protocols,
which trade latency for bandwidth; the cheapest pair counts, as in NCCL (src/graph/tuning.cc). Constants and their
sources: `catalog/network.yaml`. Checked against published runs of nccl-tests in tests/cost/test_network.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, inf, log2

from sim.catalog import Collectives, Gpu
from sim.cost.latency import CostModel, Latency, PricedBy
from sim.kernels import plays
from sim.kernels.collectives import ring_bytes
from sim.model.operations import Operation

LEAST_BYTES = 1.0
"""A message whose transfer takes no time."""


@dataclass(frozen=True)
class Route:
    """One way across the nodes."""

    name: str
    latency_s: float
    wire_s: float
    """Seconds of the NICs."""


@dataclass(frozen=True)
class NetworkCost:
    """Prices of a cost model, with collectives carried beyond one node and beyond the GPUs that were measured."""

    cost: CostModel
    gpu: Gpu
    links: Collectives
    measured_to: float = inf
    """Most GPUs whose collectives `cost` measured."""
    own_spans_rack: bool = False
    """Whether the engine's own all-reduce runs among all GPUs of a rack, or only within a machine; beyond: NCCL."""

    def knows(self, operation: Operation) -> bool:
        """As the model behind it."""
        return self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; what crosses nodes is `analytic`, the share of the node what it was."""
        if not plays(operation.kernel, "collective"):
            return self.cost.price(operation)
        if operation.shape["gpus"] <= self.gpu.scale_up_domain:
            return self._inside(operation)
        return self._across(operation)

    def _inside(self, operation: Operation) -> Latency:
        """In one NVLink domain. Beyond the measured GPUs a ring has more steps."""
        beyond = operation.shape["gpus"] - self.measured_to
        reduces = operation.kernel == "all_reduce"
        if beyond <= 0 or (reduces and self.own_spans_rack):
            return self.cost.price(operation)
        latency = self.cost.price(_by_nccl(operation))
        steps = beyond * (2 if reduces else 1)
        source = f"{latency.source}; {steps:g} more steps of a ring over NVLink"
        seconds = latency.seconds + steps * self.links.rack_step_s
        return replace(latency, seconds=seconds, priced_by="extrapolated", source=source, shares=())

    def _across(self, operation: Operation) -> Latency:
        nodes = ceil(operation.shape["gpus"] / self.gpu.scale_up_domain)
        gpus = operation.shape["gpus"] / nodes
        size = operation.shape["bytes"]
        carried = size * (1 - 1 / (nodes * gpus)) / (1 - 1 / gpus) if gpus > 1 else size
        inside, start = (self._inside(_in_node(operation, held, gpus)) for held in (carried, LEAST_BYTES))

        def seconds(route: Route) -> float:
            return route.latency_s + max(inside.seconds, start.seconds + route.wire_s)

        best = min(self._routes(operation, nodes, gpus), key=seconds)
        total_s = seconds(best)
        source = (
            f"{inside.source} on {gpus:g} GPUs of a node ({inside.seconds / total_s:.0%}); {best.name} over {nodes} "
            f"nodes and {gpus:g} NICs of each"
        )
        shares: tuple[tuple[PricedBy, float], ...] = (
            (inside.priced_by, inside.seconds),
            ("analytic", total_s - inside.seconds),
        )
        return Latency(total_s, "analytic", source, "link", shares, inside.own)

    def _routes(self, operation: Operation, nodes: int, gpus: float) -> Iterator[Route]:
        """NCCL's ways across, by algorithm and protocol."""
        size, everyone, links = operation.shape["bytes"], nodes * gpus, self.links
        reduces = operation.kernel == "all_reduce"
        passes = 2 if reduces else 1
        bus_bytes = passes * size * (everyone - 1) / everyone
        for name, protocol in links.protocols.items():
            nics = gpus * self.gpu.scale_out_bytes_per_s * links.nic_share * protocol.share
            least_s = bus_bytes / protocol.bus_bytes_per_s
            hop_s = links.ring_hop_s + protocol.ring_hop_s + (gpus - 1) * links.ring_step_s
            yield Route(f"ring ({name})", passes * (nodes - 1) * hop_s, max(bus_bytes / nics, least_s))
            if reduces:
                hop_s = links.tree_hop_s + protocol.tree_hop_s
                wire_bytes = size if nodes == 2 else 2 * size
                yield Route(f"tree ({name})", 2 * ceil(log2(nodes)) * hop_s, max(wire_bytes / nics, least_s))


def _in_node(operation: Operation, size: float, gpus: float) -> Operation:
    """The same collective of another tensor, by NCCL among the GPUs of one node."""
    shape = {**operation.shape, "gpus": gpus, "bytes": size}
    return _by_nccl(replace(operation, shape=shape, bytes=ring_bytes(operation.kernel, size, gpus)))


def _by_nccl(operation: Operation) -> Operation:
    """The collective by NCCL, where engines have kernels of their own for one machine."""
    return replace(operation, options={**operation.options, "backend": "nccl"})
