"""Packed number formats of the kernels: block-scaled FP8, the 656-byte cache entry, the 132-byte index key.

Each has a function that packs and one that unpacks. The layouts are those that FlashMLA and DeepGEMM read:
FlashMLA `flash_mla_interface.py` (V3.2 FP8 sparse cache), DeepGEMM `tests/test_attention.py` (paged index keys),
DeepSeek-V3 report (arXiv 2412.19437) section 3.3.2 (1 x 128 activations, 128 x 128 weights).
"""

from typing import Final

import torch
from torch import Tensor

from sim.kernels.formats import BLOCK

FP8: Final = torch.float8_e4m3fn
FP8_MAX: Final = float(torch.finfo(FP8).max)
"""Largest finite value of e4m3: 448."""

LATENT: Final = 512
"""Width of V3's key-value latent, which is also the value of the absorbed form."""
ROPE: Final = 64
"""Width of the decoupled RoPE key."""
TILES: Final = LATENT // BLOCK
LATENT_ENTRY_BYTES: Final = LATENT + TILES * 4 + ROPE * 2
"""Bytes of one packed cache entry: 512 FP8 values, 4 FP32 scales, 64 BF16 values = 656."""
INDEX_DIM: Final = 128
INDEX_ENTRY_BYTES: Final = INDEX_DIM + 4
"""Bytes of one packed index key: 128 FP8 values and their FP32 scale = 132."""
PAGE_TOKENS: Final = 64
"""Tokens of one block of the paged caches."""


def _scale(largest: Tensor) -> Tensor:
    """Scale that maps the largest magnitude of a block onto FP8_MAX; 1 for a block of zeros."""
    return torch.where(largest > 0, largest / FP8_MAX, torch.ones_like(largest))


MANTISSA_BITS: Final = 23
"""Of float32; the eight above them, up to the sign, are the exponent."""
EXPONENTS: Final = 4
"""Exponents of one byte that are packed into one int32."""


def power_of_two(scales: Tensor) -> Tensor:
    """The powers of two at or above positive float32 scales: UE8M0, the kind of scale that Blackwell's tensor cores
    apply (DeepGEMM 2.6.1, `csrc/apis/layout.hpp`: of FP32 scales it would keep the exponents alone)."""
    bits = scales.contiguous().view(torch.int32)
    exponent = (bits >> MANTISSA_BITS) + (bits & (1 << MANTISSA_BITS) - 1).bool()
    return (exponent.int() << MANTISSA_BITS).view(torch.float32)


def by_columns(scales: Tensor) -> Tensor:
    """Scales [.., m, c] of four bytes each with rows next to each other in memory and columns 16 bytes aligned.

    What tensor-core kernels read through TMA; the quantisation kernels of engines write them so. DeepGEMM would
    rearrange others in a kernel of its own before every product.
    """
    *leading, rows, columns = scales.shape
    laid_out = scales.new_ones(*leading, columns, -(-rows // 4) * 4).transpose(-1, -2)[..., :rows, :]
    return laid_out.copy_(scales)


def pack_exponents(scales: Tensor) -> Tensor:
    """Powers of two, float32 [.., m, c] -> their exponents, four of one row in an int32 [.., m, ceil(c / 4)], the first
    in its lowest byte, `by_columns`: how DeepGEMM takes scales on Blackwell (`check_sf_layout`, 2.6.1)."""
    exponents = (scales.contiguous().view(torch.int32) >> MANTISSA_BITS).to(torch.uint8)
    padded = torch.nn.functional.pad(exponents, (0, -scales.shape[-1] % EXPONENTS))
    return by_columns(padded.contiguous().view(torch.int32))


def unpack_exponents(packed: Tensor, columns: int) -> Tensor:
    """Inverse of `pack_exponents` for as many columns of scales."""
    shifts = 8 * torch.arange(EXPONENTS, dtype=torch.int32, device=packed.device)
    exponents = (packed.unsqueeze(-1) >> shifts & 0xFF).flatten(-2)[..., :columns]
    return (exponents << MANTISSA_BITS).view(torch.float32)


def quantize_groups(x: Tensor, powers: bool = False) -> tuple[Tensor, Tensor]:
    """Block-scaled FP8 of activations, one scale per 1 x 128; with `powers` scales are powers of two.

    x [..., k] -> values e4m3 [..., k], scales float32 [..., k / 128]; value x scale restores x.
    Raises ValueError unless 128 divides k.
    """
    if x.shape[-1] % BLOCK:
        raise ValueError(f"the last dimension must be a multiple of {BLOCK}, not {x.shape[-1]}")
    groups = x.float().unflatten(-1, (-1, BLOCK))
    scales = _scale(groups.abs().amax(-1))
    scales = power_of_two(scales) if powers else scales
    return (groups / scales.unsqueeze(-1)).flatten(-2).to(FP8), scales


def dequantize_groups(values: Tensor, scales: Tensor) -> Tensor:
    """Inverse of `quantize_groups`: float32 [..., k]."""
    groups: Tensor = values.float().unflatten(-1, (-1, BLOCK)) * scales.unsqueeze(-1)
    return groups.flatten(-2)


def quantize_blocks(weight: Tensor, powers: bool = False) -> tuple[Tensor, Tensor]:
    """Block-scaled FP8 of a weight matrix, one scale per 128 x 128; the last rows may be an incomplete block.
    With `powers` scales are powers of two.

    weight [n, k] -> values e4m3 [n, k], scales float32 [ceil(n / 128), k / 128].
    Raises ValueError unless 128 divides k.
    """
    rows, columns = weight.shape
    if columns % BLOCK:
        raise ValueError(f"the last dimension must be a multiple of {BLOCK}, not {columns}")
    padded = torch.nn.functional.pad(weight.float(), (0, 0, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK))
    scales = _scale(blocks.abs().amax((1, 3)))
    scales = power_of_two(scales) if powers else scales
    values = (blocks / scales[:, None, :, None]).flatten(2).flatten(0, 1)[:rows]
    return values.to(FP8), scales


def dequantize_blocks(values: Tensor, scales: Tensor) -> Tensor:
    """Inverse of `quantize_blocks`: float32 [n, k]."""
    rows = scales.repeat_interleave(BLOCK, 0)[: values.shape[0]]
    groups: Tensor = values.float().unflatten(-1, (-1, BLOCK)) * rows.unsqueeze(-1)
    return groups.flatten(-2)


def pack_latent(values: Tensor, scales: Tensor, rope: Tensor) -> Tensor:
    """656-byte cache entries: first 512 FP8 values, then 4 FP32 scales, last 64 BF16 values of the RoPE key.

    values e4m3 [..., 512], scales float32 [..., 4], rope bfloat16 [..., 64] -> uint8 [..., 656].
    """
    parts = (values, scales, rope)
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts], -1)


def unpack_latent(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of `pack_latent`, bit for bit."""
    values, scales, rope = packed.split([LATENT, TILES * 4, ROPE * 2], -1)
    return (
        values.contiguous().view(FP8),
        scales.contiguous().view(torch.float32),
        rope.contiguous().view(torch.bfloat16),
    )


def quantize_latent(cache: Tensor) -> Tensor:
    """Cache entries [..., 576] (latent, then RoPE key) -> packed uint8 [..., 656]."""
    values, scales = quantize_groups(cache[..., :LATENT])
    return pack_latent(values, scales, cache[..., LATENT:].to(torch.bfloat16))


def dequantize_latent(packed: Tensor) -> Tensor:
    """Packed entries uint8 [..., 656] -> float32 [..., 576]."""
    values, scales, rope = unpack_latent(packed)
    return torch.cat([dequantize_groups(values, scales), rope.float()], -1)


def pack_index_keys(values: Tensor, scales: Tensor) -> Tensor:
    """Paged index keys: a block of 64 tokens holds all its FP8 values first, then all its FP32 scales.

    values e4m3 [blocks, 64, 128], scales float32 [blocks, 64] -> uint8 [blocks, 64, 132]. The last two dimensions
    are the block's bytes in order; byte 132 i + j does NOT belong to token i.
    """
    blocks, tokens, _ = values.shape
    keys = values.contiguous().view(torch.uint8).flatten(1)
    factors = scales.contiguous().view(torch.uint8)
    return torch.cat([keys, factors], -1).view(blocks, tokens, INDEX_ENTRY_BYTES)


def unpack_index_keys(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of `pack_index_keys`, bit for bit."""
    blocks, tokens, _ = packed.shape
    keys, factors = packed.flatten(1).split([tokens * INDEX_DIM, tokens * 4], -1)
    values = keys.contiguous().view(FP8).view(blocks, tokens, INDEX_DIM)
    return values, factors.contiguous().view(torch.float32)
