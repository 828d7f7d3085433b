"""All kernel families by the name that operations carry."""

from typing import Final

from calibrate.kernels.backend import Family
from calibrate.kernels.comm import ALL_GATHER, ALL_REDUCE, COMBINE, DISPATCH, REDUCE_SCATTER
from calibrate.kernels.dsa import SPARSE_MLA_DECODE, SPARSE_MLA_PREFILL
from calibrate.kernels.dsa_index import INDEX_LOGITS, INDEX_TOPK
from calibrate.kernels.elementwise import COPY, ELEMENTWISE, LAUNCH
from calibrate.kernels.gemm import ABSORB_BMM, GEMM
from calibrate.kernels.mla import MLA_DECODE, MLA_PREFILL
from calibrate.kernels.moe import MOE
from calibrate.kernels.quantize import QUANTIZE
from calibrate.kernels.routing import MOE_FINALISE, MOE_GATE, MOE_PERMUTE

FAMILIES: Final[dict[str, Family]] = {
    family.kernel: family
    for family in (
        COPY,
        LAUNCH,
        GEMM,
        QUANTIZE,
        ABSORB_BMM,
        MLA_PREFILL,
        MLA_DECODE,
        INDEX_LOGITS,
        INDEX_TOPK,
        SPARSE_MLA_PREFILL,
        SPARSE_MLA_DECODE,
        MOE,
        MOE_GATE,
        MOE_PERMUTE,
        MOE_FINALISE,
        ELEMENTWISE,
        ALL_REDUCE,
        ALL_GATHER,
        REDUCE_SCATTER,
        DISPATCH,
        COMBINE,
    )
}
