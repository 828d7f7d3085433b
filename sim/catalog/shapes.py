"""The shapes of a model, whoever describes them."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers whose attention is of one kind, wherever in the model they stand."""

    attention: str
    """A kind's name in `sim.model.attention`."""
    layers: int
    sizes: tuple[tuple[str, int], ...] = ()
    """What the kind has beside the model's own shapes, such as the width of a window: (name, size)."""

    def size(self, name: str) -> int:
        """One of `sizes`. Raises KeyError."""
        return dict(self.sizes)[name]


@dataclass(frozen=True, slots=True)
class Model:
    """One model's shapes. The names are those of the papers; widths are in elements.

    MLA has two latents: the query latent (`q_lora_rank`) and the key-value latent (`kv_lora_rank`), and beside
    the latter the decoupled RoPE key (`qk_rope`) that all heads share; latent and RoPE key are what is cached.
    """

    name: str
    attention: tuple[LayerGroup, ...]
    """All layers, by their kind of attention."""
    dense_layers: int
    """Leading layers with a dense FFN; the others are MoE."""
    hidden: int
    heads: int
    q_lora_rank: int
    """Width of the query latent; 0 where queries are projected directly."""
    kv_lora_rank: int
    """Width of the key-value latent; 0 without MLA."""
    qk_nope: int
    """Width per head of the part of query and key that carries no position."""
    qk_rope: int
    """Width of the decoupled RoPE key."""
    v_head_dim: int
    kv_heads: int
    head_dim: int
    moe_inter: int
    dense_inter: int
    n_routed: int
    n_shared: int
    top_k: int
    n_group: int
    topk_group: int
    vocab: int
    nextn: int
    """Multi-token prediction modules."""
    index_heads: int
    index_head_dim: int
    index_topk: int
    """Keys that DSA attends to per query; 0 where there is no DSA, as are the indexer's other widths."""
    max_positions: int
    tied_embedding: bool
    weights: str
    """Number format of the published checkpoint: of the routed experts, or of everything."""
    bf16_parts: tuple[str, ...]
    """Parts that stay BF16 in a quantised checkpoint; names of `sim.model.architecture`."""
    attention_weights: str | None = None
    """Format of the attention's projections, where the checkpoint has not the usual one beside `weights`."""
    dense_weights: str | None = None
    """The same of the shared expert and of dense FFNs."""
    dspark_modules: int = 0
    """Layers of the drafter that proposes a block in one pass (DSpark); 0: none is described."""
    dspark_block: int = 0
    """Drafts of a block as the checkpoint has it."""
    dspark_target_layers: int = 0
    """Layers of the main model whose states that drafter attends to."""
    markov_rank: int = 0
    """Width of its last part, by which a draft depends on the one before."""
    drafts_in_block: bool = False
    """Whether its modules are those of that drafter: see `with_block_drafts`."""
    module: LayerGroup | None = None
    """What an MTP module's layer attends with, where not like the last group's; its `layers` mean nothing."""
    o_groups: int = 0
    """Groups of heads whose outputs are projected down apart, each to `o_lora_rank`; 0: one output projection."""
    o_lora_rank: int = 0
    streams: int = 1
    """Residual streams; several are mixed before and after each attention and FFN (hyper-connections)."""
    architecture: str = field(default="", compare=False)
    """What its config.json calls it; empty for the catalog's own."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was taken for granted or left out where a config.json was read, in sentences for the user."""

    @property
    def layers(self) -> int:
        """Layers of the main model."""
        return sum(group.layers for group in self.attention)

    @property
    def compressed(self) -> bool:
        """Whether layers attend to compressed entries."""
        return any("ratio" in dict(group.sizes) for group in self.attention)

    @property
    def moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.layers - self.dense_layers

    def module_group(self, layers: int) -> LayerGroup:
        """`layers` layers that attend as an MTP module does: like the last group's, unless said."""
        return replace(self.module or self.attention[-1], layers=layers)

    def layer_groups(self, mtp: bool) -> tuple[LayerGroup, ...]:
        """All layers; with `mtp` those of the MTP modules too, beside the main model's of their kind."""
        if not mtp or not self.nextn:
            return self.attention
        if self.module_group(1) != replace(self.attention[-1], layers=1):
            return (*self.attention, self.module_group(self.nextn))
        return (*self.attention[:-1], self.module_group(self.attention[-1].layers + self.nextn))

    def with_block_drafts(self) -> "Model":
        """With the drafter of whole blocks (DSpark) instead of the MTP modules."""
        return replace(self, nextn=self.dspark_modules, drafts_in_block=True)

    def only_layer(self) -> "Model":
        """The decoder layer of the MTP module, as a model of that one MoE layer."""
        return replace(self, attention=(self.module_group(1),), module=None, dense_layers=0, nextn=0)
