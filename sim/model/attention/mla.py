"""Multi-head latent attention (DeepSeek-V2 and V3 reports): one latent and one RoPE key are cached for all heads."""

from sim.catalog import kv_layouts
from sim.model import operations as ops
from sim.model.attention.kind import BF16, Attention, AttentionForm, Batch, Matrix, projection
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation


class Mla(Attention):
    """MHA over expanded keys and values in prefill; in decode the absorbed form, multi-query over the latents."""

    name = "mla"
    label = "MLA"
    latent = True

    def matrices(self) -> tuple[Matrix, ...]:
        """DeepSeek-V3 report, equations 1 to 10: W^DQ; W^UQ and W^QR; W^DKV and W^KR; W^UK and W^UV; W^O. V2-Lite has
        no query latent."""
        model, d, h = self.model, self.model.hidden, self.model.heads
        query = h * (model.qk_nope + model.qk_rope)
        key_value = (
            Matrix("key-value latent and RoPE key, down", d, model.kv_lora_rank + model.qk_rope, 1),
            Matrix("key-value latent, up", model.kv_lora_rank, h * (model.qk_nope + model.v_head_dim), h),
            Matrix("output", h * model.v_head_dim, d, h),
        )
        if not model.q_lora_rank:
            return (Matrix("query", d, query, h), *key_value)
        return (
            Matrix("query latent, down", d, model.q_lora_rank, 1),
            Matrix("query latent, up", model.q_lora_rank, query, h),
            *key_value,
        )

    @property
    def absorbed_parameters(self) -> int:
        """W^UK and W^UV."""
        model = self.model
        return model.kv_lora_rank * model.heads * (model.qk_nope + model.v_head_dim)

    @property
    def head_elements(self) -> int:
        """Keys are wider than values by the RoPE key."""
        return self.model.qk_nope + self.model.qk_rope + self.model.v_head_dim

    def entry_bytes(self, kv_cache: str) -> int:
        """Latent and RoPE key of a token: 1152 in BF16, 576 in FP8."""
        return kv_layouts()[f"mla_{kv_cache}"]

    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """The latent is on every GPU of a rank."""
        return self.entry_bytes(kv_cache)

    def forms(self, layout: Layout, phase: Phase) -> tuple[AttentionForm, ...]:
        """Keys and values are expanded in prefill only."""
        return (AttentionForm("mha" if phase == "prefill" else "absorbed"),)

    def widths(self) -> dict[str, float]:
        """What its projections and cores depend on beside its heads."""
        model = self.model
        return {
            "hidden": model.hidden,
            "q_lora": model.q_lora_rank,
            "kv_lora": model.kv_lora_rank,
            "nope": model.qk_nope,
            "rope": model.qk_rope,
            "v_head": model.v_head_dim,
        }

    def parts(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """Projections, the form's core, output projection."""
        model, heads, tokens = self.model, layout.heads, batch.tokens
        latents, qk = model.kv_lora_rank + model.qk_rope, model.qk_nope + model.qk_rope
        norms = tokens * 2 * (model.q_lora_rank + latents) * BF16
        return [
            *projection(layout, "q_a and kv_a", tokens, model.q_lora_rank + latents, model.hidden, layers),
            ops.elementwise("latent norms and RoPE", "attention", norms, layers),
            *projection(layout, "q_b", tokens, heads * qk, model.q_lora_rank or model.hidden, layers),
            *self.core(layout, batch, layers, form),
            *projection(layout, "o_proj", tokens, model.hidden, heads * model.v_head_dim, layers),
        ]

    def core(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """What lies between the projections of the queries and of the output."""
        return (self.absorbed if form == "absorbed" else self.expanded)(layout, batch, layers)

    def expanded(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """MHA over the keys and values of every head, expanded from all latents."""
        model, heads = self.model, layout.heads
        context, expand = batch.sequences * batch.context, heads * (model.qk_nope + model.v_head_dim)
        return [
            *projection(
                layout, "kv_b (expand keys and values)", context, expand, model.kv_lora_rank, layers
            ),
            ops.mla_prefill(
                heads, batch.sequences, batch.new, batch.cached, model.qk_nope + model.qk_rope,
                model.v_head_dim, layout.kv_cache, layers,
            ),
        ]  # fmt: skip

    def absorbed(self, layout: Layout, batch: Batch, layers: int) -> list[Operation]:
        """Multi-query attention over the latents, every token's queries over the whole context."""
        model = self.model
        core = ops.mla_decode(
            layout.heads, batch.sequences, batch.cached + batch.new, batch.new, model.kv_lora_rank,
            model.qk_rope, self.entry_bytes(layout.kv_cache), layout.kv_cache, layers,
        )  # fmt: skip
        return self.over_latents(layout, batch, core, layers)

    def over_latents(self, layout: Layout, batch: Batch, core: Operation, layers: int) -> list[Operation]:
        """A core over latents, between the products that W^UK and W^UV are absorbed in."""
        model, heads, tokens = self.model, layout.heads, batch.tokens
        pre = ops.absorb_bmm("pre", tokens, heads, model.qk_nope, model.kv_lora_rank, layers)
        post = ops.absorb_bmm("post", tokens, heads, model.v_head_dim, model.kv_lora_rank, layers)
        return [pre, core, post]
