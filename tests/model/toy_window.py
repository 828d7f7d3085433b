"""A kind of attention that no model of the catalog has: grouped queries over a window. All that it needs is here."""

from dataclasses import replace

from sim.kernels.formats import sparse_pairs
from sim.model.attention import Batch
from sim.model.attention.gqa import Gqa
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation


class Window(Gqa):
    """Each query attends to the last `window` keys, its own among them; no more are kept."""

    name = "window"
    label = "window"

    @property
    def width(self) -> int:
        return self.group.size("window")

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        return 0

    def cache_bytes(self, tokens: int, kv_cache: str, tp: int = 1) -> float:
        return min(tokens, self.width) * super().token_bytes(kv_cache, tp)

    def kinks(self, layout: Layout, phase: Phase) -> tuple[float, ...]:
        return (self.width, (self.width + 1) / 2)

    def core(self, layout: Layout, batch: Batch, layers: int) -> Operation:
        whole = super().core(layout, batch, layers)
        pairs = batch.sequences * sparse_pairs(batch.new, batch.cached, self.width)
        read = whole.cache_bytes * min(1.0, (self.width - 1 + batch.new) / batch.context)
        return replace(
            whole,
            name="window core",
            kernel=f"gqa_window_{batch.phase}",
            flop=4 * layout.heads * self.model.head_dim * pairs,
            bytes=whole.bytes - whole.cache_bytes + read,
            cache_bytes=read,
        )
