"""Speeds of the memories below the GPU's own that hold cached prefixes."""

from dataclasses import dataclass
from functools import cache

from sim.catalog.facts import read, values


@dataclass(frozen=True, slots=True)
class CacheTiers:
    """What fetching a prefix from host memory or disk reaches."""

    pcie_fraction: float
    """Share of the PCIe bandwidth, host to GPU."""
    disk_bytes_per_s_per_node: float
    """Shared by the node's GPUs."""


@cache
def cache_tiers() -> CacheTiers:
    """The speeds of the catalog."""
    return CacheTiers(**values(read("cache_tiers.yaml")))
