"""The latent cache in blocks: latents with RoPE keys, index keys beside them, of every layer; and the free blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sim.catalog import Model


class OutOfBlocks(Exception):
    """No block is free."""


class LatentCache:
    """Entries of all layers (the MTP module's is the last) in blocks of `block_tokens` tokens.

    A block's number is the same in every layer: a sequence has one table of blocks.
    """

    def __init__(
        self, model: Model, blocks: int, block_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        layers = model.layers + model.nextn
        room = (layers, blocks * block_tokens)
        self.block_tokens = block_tokens
        # Not a number until written: a kernel that reads what no sequence wrote shows.
        self.latents = torch.full(
            (*room, model.kv_lora_rank + model.qk_rope), float("nan"), device=device, dtype=dtype
        )
        self.index_keys = torch.full((*room, model.index_head_dim), float("nan"), device=device, dtype=dtype)
        self.free = list(range(blocks))[::-1]

    def needed(self, tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-tokens // self.block_tokens)

    def extend(self, table: list[int], tokens: int) -> None:
        """Give a sequence the blocks that it lacks for so many tokens. Raises OutOfBlocks, and then gives none."""
        lacking = self.needed(tokens) - len(table)
        if lacking > len(self.free):
            raise OutOfBlocks(f"{lacking} blocks needed, {len(self.free)} free")
        table.extend(self.free.pop() for _ in range(lacking))

    def release(self, table: list[int]) -> None:
        """Take all blocks back."""
        self.free.extend(reversed(table))
        table.clear()

    def places(self, table: Sequence[int], first: int, last: int) -> Tensor:
        """Where the entries of tokens first .. last - 1 of a sequence lie, int64 [last - first]."""
        blocks = torch.tensor(table, dtype=torch.int64)
        token = torch.arange(first, last)
        return blocks[token // self.block_tokens] * self.block_tokens + token % self.block_tokens
