"""Grouped-query attention: keys and values of `kv_heads` heads are cached, each for several query heads."""

from sim.model import operations as ops
from sim.model.attention.kind import Attention, AttentionForm, Batch, Matrix, projection
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES


class Gqa(Attention):
    """Full attention over the keys and values of every token."""

    name = "gqa"
    label = "GQA"

    def words(self) -> str:
        """MHA where every head has keys and values of its own."""
        return "MHA" if self.model.kv_heads == self.model.heads else "GQA"

    def matrices(self) -> tuple[Matrix, ...]:
        """W^Q, W^K and W^V, W^O."""
        model, d, h, kv = self.model, self.model.hidden, self.model.heads, self.model.kv_heads
        return (
            Matrix("query", d, h * model.head_dim, h),
            Matrix("key and value", d, 2 * kv * model.head_dim, kv),
            Matrix("output", h * model.v_head_dim, d, h),
        )

    def heads_on_gpu(self, tp: int) -> int:
        """Key-value heads of one GPU, at least one."""
        return max(1, self.model.kv_heads // tp)

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """Keys and values of the GPU's heads."""
        return round(2 * self.heads_on_gpu(tp) * self.model.head_dim * DTYPE_BYTES[kv_cache])

    def forms(self, layout: Layout, phase: Phase) -> tuple[AttentionForm, ...]:
        """One for all."""
        return (AttentionForm("full"),)

    def parts(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """Projections, core, output projection."""
        model, heads, kv_heads = self.model, layout.heads, self.heads_on_gpu(layout.tp)
        width = (heads + 2 * kv_heads) * model.head_dim
        return [
            *projection(layout, "qkv", batch.tokens, width, model.hidden, layers),
            self.core(layout, batch, layers),
            *projection(layout, "o_proj", batch.tokens, model.hidden, heads * model.head_dim, layers),
        ]

    def core(self, layout: Layout, batch: Batch, layers: int) -> Operation:
        """Attention over the whole context."""
        return ops.gqa(
            batch.phase, layout.heads, self.heads_on_gpu(layout.tp), self.model.head_dim, batch.sequences,
            batch.new, batch.cached, DTYPE_BYTES[layout.kv_cache], layers,
        )  # fmt: skip
