"""Attention of DeepSeek-V4 (report, arXiv 2606.19348): one entry is key and value of all heads; here over a window."""

from sim.catalog import kv_layouts
from sim.kernels import compressed
from sim.model import operations as ops
from sim.model.attention.kind import BF16, Attention, AttentionForm, Batch, Matrix, projection
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation


class Swa(Attention):
    """Multi-query attention over the entries of the last `window` tokens; the output is projected group by group."""

    name = "swa"
    label = "SWA"
    latent = True

    @property
    def ratio(self) -> int:
        """Tokens that a compressed entry stands for; 0: there are none."""
        return 0

    @property
    def top_k(self) -> int:
        """Compressed entries that a query attends to; 0: all."""
        return 0

    @property
    def window(self) -> int:
        """Tokens that have an entry of their own."""
        return self.group.size("window")

    def words(self) -> str:
        """What a query attends to."""
        return f"a window of {self.window} tokens ({self.label})"

    def matrices(self) -> tuple[Matrix, ...]:
        """`DeepseekV4Attention` of transformers 5.23.0: query latent, down and up; the entry; output of each group of
        heads, and of all groups."""
        model = self.model
        grouped = model.o_groups * model.o_lora_rank
        return (
            Matrix("query latent, down", model.hidden, model.q_lora_rank, 1),
            Matrix("query latent, up", model.q_lora_rank, model.heads * model.head_dim, model.heads),
            Matrix("key that is value", model.hidden, model.head_dim, 1),
            Matrix(
                "output of a group, down",
                model.heads * model.head_dim // model.o_groups,
                grouped,
                model.o_groups,
            ),
            Matrix("output of all groups, up", grouped, model.hidden, model.o_groups),
        )

    def entry_bytes(self, kv_cache: str) -> int:
        """Bytes of one entry."""
        return kv_layouts()["compressed_bf16" if kv_cache == "bf16" else "compressed_fp8"]

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """Windows do not grow."""
        return 0.0

    def cache_bytes(self, tokens: int, kv_cache: str, tp: int = 1) -> float:
        """Window, state and compressed entries; on every GPU of a rank."""
        if not tokens:
            return 0.0
        window = min(tokens, self.window) * self.entry_bytes(kv_cache)
        return window + self.state_bytes() + tokens * self.token_bytes(kv_cache, tp)

    def forms(self, layout: Layout, phase: Phase) -> tuple[AttentionForm, ...]:
        """One for all."""
        return (AttentionForm("shared key and value"),)

    def kinks(self, layout: Layout, phase: Phase) -> tuple[float, ...]:
        """A full window: the mean context of a decode step, and of a prompt of that length."""
        return (self.window, (self.window + 1) / 2)

    def options(self, layout: Layout, batch: Batch, form: str) -> dict[str, str]:
        """Blocks were measured with FP8 index keys or without saying."""
        return {"kv_cache": "bf16" if layout.kv_cache == "bf16" else "fp8"}

    def widths(self) -> dict[str, float]:
        """What its projections and cores depend on beside its heads."""
        model = self.model
        return {
            "hidden": model.hidden,
            "q_lora": model.q_lora_rank,
            "head_dim": model.head_dim,
            "group_heads": model.heads / model.o_groups,
            "o_lora": model.o_lora_rank,
            "window": self.window,
        }

    def parts(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """Projections, what chooses and compresses, the core, the two output projections."""
        model, heads, tokens = self.model, layout.heads, batch.tokens
        down, group = model.q_lora_rank + model.head_dim, model.heads / model.o_groups
        latents = heads / group * model.o_lora_rank
        return [
            *projection(layout, "q_a and kv", tokens, down, model.hidden, layers),
            ops.elementwise("norms and RoPE", "attention", tokens * 2 * down * BF16, layers),
            *projection(layout, "q_b", tokens, heads * model.head_dim, model.q_lora_rank, layers),
            *self.beside(layout, batch, layers),
            self.core(layout, batch, layers),
            *self._output_by_group(layout, tokens, layers),
            *projection(layout, "o_b", tokens, model.hidden, latents, layers),
        ]

    def _output_by_group(self, layout: Layout, tokens: float, layers: int) -> list[Operation]:
        """Each group of heads down to its own latent: one product for each, whose inputs are their own."""
        model, dtype = self.model, layout.attention_weights
        inputs, groups = layout.heads * model.head_dim, layout.heads * model.o_groups / model.heads
        name, latents = "o_a (by group)", groups * model.o_lora_rank
        down = ops.gemm(name, "attention", tokens, latents, inputs / groups, dtype, layers)
        if dtype == "bf16":
            return [down]
        # Its product's row is of one group's inputs: `feeds` would leave out those of the others.
        return [ops.quantize(f"quantise for {name}", "attention", tokens, inputs, layers), down]

    def beside(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Compressor and indexer: none."""
        return []

    def core(self, layout: Layout, batch: Batch, layers: int) -> Operation:
        """Window and compressed entries in one kernel."""
        over = (batch.sequences, batch.new, batch.cached, self.window, self.ratio, self.top_k)
        entry_bytes = self.entry_bytes(layout.kv_cache)
        shape = {
            "heads": layout.heads, "batch": batch.sequences, "new": batch.new, "context": batch.context,
        }  # fmt: skip
        return Operation(
            "core over shared keys and values", "attention", f"{self.name}_{batch.phase}", shape, "bf16",
            *compressed.core(batch.phase, layout.heads, self.model.head_dim, *over, entry_bytes), layers,
            options=self.options(layout, batch, ""),
            cache_bytes=compressed.entries(batch.phase, *over) * entry_bytes,
        )  # fmt: skip
