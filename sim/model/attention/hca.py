"""Heavily compressed attention (DeepSeek-V4 report, arXiv 2606.19348): all entries, each of `ratio` tokens."""

from sim.model import operations as ops
from sim.model.attention.kind import Batch, Matrix
from sim.model.attention.swa import Swa
from sim.model.layout import Layout
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES

FP32 = DTYPE_BYTES["fp32"]


class Hca(Swa):
    """A window, and one compressed entry for every `ratio` tokens, pooled from the last `pool` ones."""

    name = "hca"
    label = "HCA"

    @property
    def ratio(self) -> int:
        """Tokens that a compressed entry stands for."""
        return self.group.size("ratio")

    @property
    def pool(self) -> int:
        """Tokens that an entry pools: more than `ratio` where pools overlap."""
        return self.group.size("pool")

    @property
    def overlap(self) -> int:
        """Times that a token is pooled, each with a key and a gate of its own."""
        return self.pool // self.ratio

    def words(self) -> str:
        """What a query attends to."""
        return f"one entry for {self.ratio} tokens and a window of {self.window} ({self.label})"

    def compressor(self, name: str, width: int) -> tuple[Matrix, ...]:
        """Keys and gates of `width` elements (`DeepseekV4HCACompressor` of transformers 5.23.0), and the gates' biases
        by place in the pool."""
        outputs = self.overlap * width
        return (
            Matrix(f"{name}, keys and gates", self.model.hidden, 2 * outputs, 1, "compressor"),
            Matrix(f"{name}, biases", self.ratio, outputs, 1, "compressor"),
        )

    def matrices(self) -> tuple[Matrix, ...]:
        """And the compressor, which TP does not shard."""
        return (*super().matrices(), *self.compressor("compressor", self.model.head_dim))

    def pooled_bytes(self, width: int) -> float:
        """Keys and gates of the tokens that an entry of `width` elements is pooled from, in FP32 (vLLM 0.33.0,
        models/deepseek_v4/compressor.py)."""
        return self.pool * 2 * self.overlap * width * FP32

    def state_bytes(self) -> float:
        """Keys and gates that wait for their entry."""
        return self.pooled_bytes(self.model.head_dim)

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """A share of an entry."""
        return self.entry_bytes(kv_cache) / self.ratio

    def widths(self) -> dict[str, float]:
        """And the ratio."""
        return {**super().widths(), f"{self.name}_ratio": self.ratio}

    def beside(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """The compressor."""
        return self.compress("compressor", batch, self.model.head_dim, layers)

    def compress(self, name: str, batch: Batch, width: int, layers: int) -> list[Operation]:
        """Keys and gates of every token, in BF16, kept in FP32 and pooled."""
        outputs = 2 * self.overlap * width
        return [
            ops.gemm(name, "attention", batch.tokens, outputs, self.model.hidden, "bf16", layers),
            ops.elementwise(f"{name}: pooling", "attention", batch.tokens * 2 * outputs * FP32, layers),
        ]
