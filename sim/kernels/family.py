"""What a kernel family is: the coordinates of its shapes, the work that a shape is, and its part in a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sim.catalog import Model, kv_layouts
from sim.units import DTYPE_BYTES

Phase = Literal["prefill", "decode"]
Shape = Mapping[str, Any]
"""Axis name to value: numbers, or numpy arrays of equal length."""
Stage = tuple[Any, Any]
"""(FLOP, bytes) of one stage of a kernel; stages follow one another, the two of one stage overlap."""
Carrier = Literal["memory", "cache", "scale_up", "scale_out"]
"""What moves the bytes of a stage: the GPU's memory, its L2, NVLink, the network."""
Role = Literal["core", "indexer", "outward", "collective"]
"""Part in a step.

core: attention over the keys, which depends on the context. indexer: which keys those are. outward: brings tokens to
their experts; the other exchanges bring them back. collective: every GPU gives and takes the same.
"""

DEFAULTS: Final[dict[str, float]] = {"queries": 1.0, "cached": 0.0}
"""Axes that an operation or a record may leave out."""


@dataclass(frozen=True, slots=True)
class Dims:
    """Widths of an architecture that no axis of a table carries, and the bytes of its sparse cache's entries."""

    hidden: int
    q_lora: int
    kv_lora: int
    nope: int
    rope: int
    v_head: int
    index_heads: int
    index_dim: int
    index_topk: int
    index_key_bytes: int
    sparse_entry_bytes: int
    head_dim: int
    group_heads: float
    """Heads whose outputs are projected down together; 0 without groups."""
    o_lora: int
    window: int
    csa_ratio: int
    hca_ratio: int
    """Tokens that one compressed entry stands for; 0 without such layers."""
    pool_overlap: int
    """Times that CSA pools a token."""
    compressed_entry_fp8_bytes: int
    compressed_index_key_bytes: int
    streams: int

    @classmethod
    def of(cls, model: Model) -> "Dims":
        """The widths of a model of the catalog."""
        layouts = kv_layouts()
        groups = {group.attention: dict(group.sizes) for group in model.attention}
        csa, hca = groups.get("csa", {}), groups.get("hca", {})
        return cls(
            hidden=model.hidden,
            q_lora=model.q_lora_rank,
            kv_lora=model.kv_lora_rank,
            nope=model.qk_nope,
            rope=model.qk_rope,
            v_head=model.v_head_dim,
            index_heads=model.index_heads,
            index_dim=model.index_head_dim,
            index_topk=model.index_topk,
            index_key_bytes=layouts["dsa_index_key"],
            sparse_entry_bytes=layouts["dsa_fp8"],
            head_dim=model.head_dim,
            group_heads=model.heads / model.o_groups if model.o_groups else 0,
            o_lora=model.o_lora_rank,
            window=csa.get("window", 0),
            csa_ratio=csa.get("ratio", 0),
            hca_ratio=hca.get("ratio", 0),
            pool_overlap=csa["pool"] // csa["ratio"] if csa else 0,
            compressed_entry_fp8_bytes=layouts["compressed_fp8"],
            compressed_index_key_bytes=layouts["compressed_index_key"],
            streams=model.streams,
        )

    @property
    def qk_dim(self) -> int:
        """Width per head of query and key in the MHA form."""
        return self.nope + self.rope


@dataclass(frozen=True, slots=True)
class Variant:
    """What selects a table beside the kernel family: arithmetic dtype and options."""

    dtype: str
    options: Mapping[str, str]

    def entry_bytes(self, dims: Dims) -> float:
        """Bytes of one latent KV entry: (kv_lora + rope) elements of the cache's format."""
        return (dims.kv_lora + dims.rope) * DTYPE_BYTES.get(self.options.get("kv_cache", "bf16"), 2.0)

    def sparse_entry_bytes(self, dims: Dims) -> float:
        """Bytes of one latent KV entry of a DSA model: 656 in FP8 (scales and BF16 RoPE part included)."""
        return dims.sparse_entry_bytes if self.options.get("kv_cache") == "fp8" else self.entry_bytes(dims)

    def compressed_entry_bytes(self, dims: Dims) -> float:
        """Bytes of one entry that is key and value of all heads: 584 in FP8 (scales and BF16 RoPE part included)."""
        fp8 = self.options.get("kv_cache") == "fp8"
        return dims.compressed_entry_fp8_bytes if fp8 else dims.head_dim * DTYPE_BYTES["bf16"]


Work = Callable[[Shape, Variant, Dims], list[Stage]]
"""Stages of the work at a shape; the axes, with `DEFAULTS`, are all present."""


@dataclass(frozen=True)
class Family:
    """One kernel, or one block of kernels that is measured as a whole, in all its shapes."""

    name: str
    """As in `Operation.kernel` and in a profile's tables."""
    words: str
    """What a user calls it."""
    axes: tuple[str, ...]
    """Axes of a table's grid, the outermost first; the innermost is the one measured most densely."""
    work: Work
    free: tuple[str, ...] = ()
    """Axes outside the grid that a table holds at one value; the fitted form prices another, as an extrapolation."""
    counted: tuple[str, ...] = ()
    """Other axes that its work is counted by."""
    by_tokens: tuple[str, ...] = ()
    """The grid once more, along the tokens of all prompts together (`together`) instead of those of one: of as many
    tokens many short prompts take much the same time as few long ones. Empty where that was not found to tell left-out
    shapes better."""
    launched: bool = False
    """Whether it is several kernels that the host launches one by one while they run, where no graph was captured."""
    widths: tuple[str, ...] = ()
    """Widths that no axis carries, by their names in `Dims`: what was measured at others does not price an
    operation."""
    equivalent: Callable[[Shape], Shape] | None = None
    """A shape that a table does not hold -> the one that it does hold which loads the kernel alike."""
    computed: tuple[str, ...] = ()
    """Axes of the grid that no shape has: `equivalent` computes them."""
    follows: Mapping[str, Callable[[Shape], Any]] | None = None
    """Axes of a shape that follow from computed ones, where a shape is moved along those."""
    stages: tuple[str, ...] | None = None
    """The family whose tiles each stage fills, where there are several; empty: nothing is padded."""
    carriers: tuple[Carrier, ...] | None = None
    """What carries the bytes of each stage; None: the GPU's memory."""
    beside: Callable[[Shape, Variant, Dims], Any] | None = None
    """Bytes that move without a term of their own in the time: by the memory while the L2 carries a stage's, over
    NVLink while the network does, or in proportion to a stage."""
    roles: tuple[Role, ...] = ()
    arithmetic: bool = True
    """Whether it multiplies matrices, so that a roofline tells something."""
    blocked: tuple[str, ...] = ()
    """Axes that FP8 blocks must divide."""
    any_cache: bool = False
    """Whether its option kv_cache means nothing to it: the kernel reads no cache."""

    @property
    def needs(self) -> frozenset[str]:
        """Axes that a measured shape has to have."""
        return frozenset((*self.axes, *self.free, *self.counted)) - {*self.computed} - DEFAULTS.keys()

    def reference(self, shape: Shape) -> Shape:
        """The shape whose grid coordinates are used for `shape`; `axes` are all present in it."""
        return self.equivalent(shape) if self.equivalent else shape

    def together(self, shape: Shape) -> dict[str, Any]:
        """The shape with what `by_tokens` counts: new tokens of all its prompts, KV tokens before those of each."""
        cached = shape["cached"] if "cached" in self.axes else shape["context"] - shape["new"]
        return {**shape, "tokens": shape["batch"] * shape["new"], "cached": cached}

    def moved(self, shape: Shape, places: Shape) -> dict[str, Any]:
        """The shape at other coordinates, with what follows from them."""
        moved = {**shape, **places}
        return {**moved, **{axis: of(moved) for axis, of in self.follows.items()}} if self.follows else moved

    def carried_by(self, stages: int) -> tuple[Carrier, ...]:
        """What carries the bytes of so many stages; a branch of a block may have only the first."""
        memory: Carrier = "memory"
        return self.carriers[:stages] if self.carriers else (memory,) * stages

    def traffic(self, shape: Shape, variant: Variant, dims: Dims) -> Stage:
        """(FLOP, bytes) of all that runs; the bytes are what the GPU's memory or its links move."""
        stages = self.work(shape, variant, dims)
        carried = zip(stages, self.carried_by(len(stages)), strict=True)
        moved = sum(traffic for (_, traffic), by in carried if by != "cache")
        beside = self.beside(shape, variant, dims) if self.beside else 0.0
        return sum(flop for flop, _ in stages), moved + beside

    def tiled_as(self, stages: int) -> tuple[str, ...]:
        """The family whose tiles each of so many stages fills: a branch of a block without a core has fewer."""
        families = self.stages or (self.name,)
        return families if len(families) == stages else (families[0],) + ("",) * (stages - 1)
