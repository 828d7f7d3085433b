"""What collectives over several nodes cost beyond one node: hops, protocols, NICs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from sim.catalog.facts import read, values


@dataclass(frozen=True, slots=True)
class Protocol:
    """How NCCL sends: small messages with a flag beside the data, large ones in buffers that are handed over."""

    tree_hop_s: float
    """What a hop up or down a tree takes beyond one of the LL protocol."""
    ring_hop_s: float
    """The same around a ring."""
    share: float
    """Of the bytes on the wire that are data."""
    bus_bytes_per_s: float
    """Most that a collective reaches, in nccl-tests' bus bandwidth, whatever its NICs."""


@dataclass(frozen=True, slots=True)
class Collectives:
    """NCCL's trees and rings over several nodes."""

    tree_hop_s: float
    """One node up or down a tree."""
    ring_hop_s: float
    """From one node to the next around a ring."""
    ring_step_s: float
    """From one GPU to the next inside a node, on a ring that also crosses nodes."""
    rack_step_s: float
    """The same on a ring inside one NVLink domain."""
    nic_share: float
    """Of the NIC's bandwidth that large messages reach."""
    protocols: Mapping[str, Protocol]


@cache
def collectives() -> Collectives:
    """The catalog's collectives over several nodes."""
    content = values(read("network.yaml")["collectives"])
    protocols = {name: Protocol(**protocol) for name, protocol in content.pop("protocols").items()}
    return Collectives(**content, protocols=MappingProxyType(protocols))
