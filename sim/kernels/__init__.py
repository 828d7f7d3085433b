"""Kernel families, a file each: what a shape is, how many FLOP and bytes it takes, and its part in a step.

Everything that counts work asks here: the operations of a model, the fitted form of a measured table, roofline
pictures, calibration. FLOP = 2 x MAC. Every count is for ONE GPU and ONE layer; traffic counts each operand once.

Formulas: DeepSeek-V3 report (arXiv 2412.19437) section 2.1.1 for MLA, DeepSeek-V3.2 report section 2 for the indexer;
shapes follow DeepSeek's reference `inference/model.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sim.kernels import (
    collectives,
    compressed,
    dsa,
    elementwise,
    exchange,
    experts,
    gemm,
    gqa,
    hyper_connections,
    mega_moe,
    mla,
)
from sim.kernels.family import Family, Role

FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        family.name: family
        for module in (
            gemm,
            mla,
            dsa,
            compressed,
            gqa,
            hyper_connections,
            experts,
            mega_moe,
            exchange,
            collectives,
            elementwise,
        )
        for family in module.FAMILIES
    }
)
"""Every family by its name. What an engine spends on the host, and what only `calibrate` times, has none."""


def plays(kernel: str, *roles: Role) -> bool:
    """Whether a kernel has one of the roles in a step; one without a family has none."""
    family = FAMILIES.get(kernel)
    return family is not None and any(role in roles for role in family.roles)
