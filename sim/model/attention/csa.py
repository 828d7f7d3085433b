"""Compressed sparse attention (DeepSeek-V4 report, arXiv 2606.19348): an indexer chooses among compressed entries."""

from sim.catalog import kv_layouts
from sim.kernels import compressed
from sim.model import operations as ops
from sim.model.attention.hca import Hca
from sim.model.attention.kind import Batch, Matrix, projection
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation

FP4_INDEX = "fp8_fp4"
"""The FP8 cache whose index keys are MXFP4."""


class Csa(Hca):
    """A window, and the best compressed entries of each query; each has an index key beside it."""

    name = "csa"
    label = "CSA"
    sparse = True

    @property
    def top_k(self) -> int:
        """Entries that a query attends to."""
        return self.model.index_topk

    def words(self) -> str:
        """How many entries each query attends to."""
        chosen = f"{self.top_k:,} of the entries for {self.ratio} tokens each"
        return f"{chosen}, and a window of {self.window} ({self.label})"

    def matrices(self) -> tuple[Matrix, ...]:
        """And the indexer (`DeepseekV4Indexer`): queries from the query latent, the heads' weights from the token, keys
        by a compressor of their own. TP does not shard it."""
        model = self.model
        return (
            *super().matrices(),
            Matrix(
                "indexer query", model.q_lora_rank, model.index_heads * model.index_head_dim, 1, "indexer"
            ),
            Matrix("indexer weights", model.hidden, model.index_heads, 1, "compressor"),
            *self.compressor("indexer key", model.index_head_dim),
        )

    def index_key_bytes(self, kv_cache: str) -> int:
        """Of one entry's index key: FP8 and a scale, or MXFP4."""
        fp4 = "_fp4" if kv_cache == FP4_INDEX else ""
        return kv_layouts()[f"compressed_index_key{fp4}"]

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """Shares of an entry and of its index key."""
        return (self.entry_bytes(kv_cache) + self.index_key_bytes(kv_cache)) / self.ratio

    def index_bytes(self) -> float:
        """Of the FP8 cache."""
        return self.index_key_bytes("fp8") / self.ratio

    def state_bytes(self) -> float:
        """Of entries and of index keys."""
        return super().state_bytes() + self.pooled_bytes(self.model.index_head_dim)

    def kinks(self, layout: Layout, phase: Phase) -> tuple[float, ...]:
        """And the context from which entries are left out."""
        return (*super().kinks(layout, phase), self.top_k * self.ratio)

    def widths(self) -> dict[str, float]:
        """And the indexer's."""
        model = self.model
        return {
            **super().widths(),
            "index_heads": model.index_heads,
            "index_dim": model.index_head_dim,
            "index_topk": model.index_topk,
        }

    def beside(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Both compressors, and the indexer's projections, logits and selection."""
        model, tokens = self.model, batch.tokens
        width = model.index_heads * model.index_head_dim
        return [
            *super().beside(layout, batch, layers),
            *self.compress("indexer key", batch, model.index_head_dim, layers),
            *projection(layout, "indexer q_b", tokens, width, model.q_lora_rank, layers),
            ops.gemm("indexer weights", "attention", tokens, model.index_heads, model.hidden, "bf16", layers),
            *self._selection(layout, batch, layers),
        ]

    def _selection(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Scores of all entries, and the best of each query."""
        model, of_batch = self.model, (batch.sequences, batch.new, batch.cached, self.ratio)
        shape = {"batch": batch.sequences, "new": batch.new, "context": batch.context}
        key_bytes = self.index_key_bytes(layout.kv_cache)
        logits = compressed.logits(*of_batch, model.index_heads, model.index_head_dim, key_bytes)
        keys = batch.sequences * batch.context / self.ratio * key_bytes
        chosen = compressed.topk(*of_batch, model.index_topk)
        return [
            Operation(
                "index logits", "attention", "csa_logits", shape, "fp8", *logits, layers, cache_bytes=keys
            ),
            Operation("index top-k", "attention", "csa_topk", shape, "fp32", *chosen, layers),
        ]
