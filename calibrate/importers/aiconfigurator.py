"""NVIDIA aiconfigurator tables (DeepSeek slices) -> profiles.

The tables are Apache-2.0; what was changed is stated in every profile's header, as the licence asks.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from calibrate.importers import attention, exchange, experts, matrices
from calibrate.importers.source import Source
from sim.cost.profile import Table

READERS: Final[tuple[Callable[[Source], Iterator[Table]], ...]] = (
    attention.mla_kernels,
    attention.mla_modules,
    attention.dsa_modules,
    attention.index_kernels,
    matrices.gemms,
    matrices.absorb_bmms,
    matrices.quantisation,
    experts.grouped_gemms,
    experts.deepep_gemms,
    exchange.deepep,
    exchange.single_node_exchange,
    exchange.nvlink_exchange,
    exchange.collectives,
)

GPUS: Final = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200_nvl72", "gb300_nvl72")

ATTRIBUTION: Final[dict[str, Any]] = {
    "source": "NVIDIA aiconfigurator-core 0.12.0 performance tables (PyPI), DeepSeek slices",
    "copyright": "Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES",
    "license": "Apache-2.0",
    "paper": "Xu et al., AIConfigurator, arXiv:2601.06288",
    "changes": (
        "rows filtered to DeepSeek-V3 and V3.2 shapes; rows named in calibrate/importers/data/qa_flags.csv left "
        "out or relabelled; repeated shapes replaced by their median; units, axis names and back-end names "
        "changed; BF16 products replaced by the median of three engines' timings of the same call; MoE rows converted "
        "from global tokens to token-expert pairs on rank 0; launches and unfused norms taken out of attention blocks "
        "(launches.csv beside the profiles)"
    ),
}


def read_tables(folder: Path, gpu: str, engine: str) -> list[Table]:
    """Every table of one GPU and engine. Raises MissingTable where the folder lacks a file."""
    source = Source(folder, gpu, engine)
    return [table for reader in READERS for table in reader(source)]


def header(gpu: str, engine: str) -> dict[str, Any]:
    """The head of an imported profile, without its tables."""
    return {"gpu": gpu, "engine": engine, "attribution": ATTRIBUTION}
