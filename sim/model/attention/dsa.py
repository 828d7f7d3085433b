"""DeepSeek Sparse Attention (DeepSeek-V3.2 report, section 2.1): MLA over the keys that a lightning indexer chooses."""

from math import ceil

from sim.catalog import kv_layouts
from sim.model import operations as ops
from sim.model.attention.kind import AttentionForm, Batch, Matrix, projection
from sim.model.attention.mla import Mla
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES


class Dsa(Mla):
    """Sparse over latents; short prompts dense, as masked MHA, which writes index keys all the same."""

    name = "dsa"
    label = "DSA"
    sparse = True

    def words(self) -> str:
        """How many keys each query attends to."""
        return f"MLA, sparse: {self.model.index_topk:,} keys (DSA)"

    def matrices(self) -> tuple[Matrix, ...]:
        """MLA's and the indexer's (`Indexer` of the reference model.py): queries come from the query latent, the key
        and the heads' weights from the token. TP does not shard it."""
        model, heads = self.model, self.model.index_heads
        return (
            *super().matrices(),
            Matrix("indexer query", model.q_lora_rank, heads * model.index_head_dim, 1, "indexer"),
            Matrix("indexer key", model.hidden, model.index_head_dim, 1, "indexer"),
            Matrix("indexer weights", model.hidden, heads, 1, "indexer"),
        )

    def entry_bytes(self, kv_cache: str) -> int:
        """As MLA's in BF16; 656 in FP8: the RoPE key stays BF16, each 128 elements of the latent have an FP32 scale."""
        return kv_layouts()["dsa_fp8"] if kv_cache == "fp8" else super().entry_bytes(kv_cache)

    def index_bytes(self) -> int:
        """128 FP8 values and an FP32 scale."""
        return kv_layouts()["dsa_index_key"]

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """Latent and RoPE key, and the index key."""
        return self.entry_bytes(kv_cache) + self.index_bytes()

    def forms(self, layout: Layout, phase: Phase) -> tuple[AttentionForm, ...]:
        """Sparse in decode; in prefill dense up to the engine's threshold for the longest prompt."""
        sparse, dense_up_to = AttentionForm("sparse"), layout.dense_prefill_max_kv
        return (
            (AttentionForm("dense", dense_up_to), sparse) if phase == "prefill" and dense_up_to else (sparse,)
        )

    def kinks(self, layout: Layout, phase: Phase) -> tuple[float, ...]:
        """Top-k; and the mean context (n + 1) / 2 of the longest prompt short enough for the dense form, and of one a
        token longer."""
        switches = [x for form in self.forms(layout, phase)[:-1] for x in (form.up_to + 1, form.up_to + 2)]
        return (self.model.index_topk, *(x / 2 for x in switches))

    def options(self, layout: Layout, batch: Batch, form: str) -> dict[str, str]:
        """Blocks of prefill were measured in each form."""
        options = super().options(layout, batch, form)
        return {**options, "branch": form} if batch.phase == "prefill" else options

    def widths(self) -> dict[str, float]:
        """And the indexer's."""
        model = self.model
        return {
            **super().widths(),
            "index_heads": model.index_heads,
            "index_dim": model.index_head_dim,
            "index_topk": model.index_topk,
        }

    def core(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """The indexer's projections, and the core of the form."""
        core = (self.chosen if form == "sparse" else self.expanded)(layout, batch, layers)
        return [*self._index_projections(layout, batch.tokens, layers), *core]

    def chosen(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Scores of all keys, the best of each query, and the absorbed form over these."""
        model, of_batch = self.model, (batch.sequences, batch.new, batch.cached)
        key_bytes = ops.activation_bytes(model.index_head_dim, "fp8")
        logits = ops.index_logits(*of_batch, model.index_heads, model.index_head_dim, key_bytes, layers)
        select = ops.index_topk(*of_batch, model.index_topk, layers)
        core = ops.sparse_mla(
            batch.phase, layout.heads, *of_batch, model.index_topk, model.kv_lora_rank, model.qk_rope,
            self.entry_bytes(layout.kv_cache), layout.kv_cache, layers,
        )  # fmt: skip
        return [logits, select, *self.over_latents(layout, batch, core, layers)]

    def _index_projections(self, layout: Layout, tokens: float, layers: int) -> list[Operation]:
        """The indexer's query, key and weight projections; replicated under TP (its heads are not sharded)."""
        model = self.model
        width = model.index_heads * model.index_head_dim
        return [
            *projection(layout, "indexer q_b", tokens, width, model.q_lora_rank, layers),
            *projection(layout, "indexer key", tokens, model.index_head_dim, model.hidden, layers),
            ops.gemm("indexer weights", "attention", tokens, model.index_heads, model.hidden, "bf16", layers),
        ]

    def operations(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """The block, and what a chunk reads again."""
        block = super().operations(layout, batch, layers, form)
        if form != "sparse" or batch.phase == "decode":
            return block
        return [*block, *self.index_rereads(layout, batch, layers)]

    def index_rereads(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Index keys that a sparse chunk reads again because its logits do not fit their memory all at once.

        `new` queries against new + cached keys make 4 bytes of logit per pair; with M bytes the queries are scored in
        ceil(new / floor(M / (4 (new + cached)))) rounds, and each round after the first reads every key (132 bytes).
        """
        if not layout.index_logits_bytes:
            return []
        at_once = max(1, int(layout.index_logits_bytes / (DTYPE_BYTES["fp32"] * batch.context)))
        rounds = ceil(batch.new / at_once)
        if rounds == 1:
            return []
        keys = batch.sequences * batch.context * self.index_bytes()
        name = f"index keys again ({rounds} rounds of logits)"
        return [ops.elementwise(name, "attention", keys, layers * (rounds - 1))]
