"""What a kind of attention has to say: its matrices, its cache, its forms, and the operations of a step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import ClassVar, Literal, NamedTuple

from sim.catalog import LayerGroup, Model
from sim.model import operations as ops
from sim.model.layout import Layout, Phase
from sim.model.operations import Block, Operation
from sim.units import DTYPE_BYTES

BF16 = DTYPE_BYTES["bf16"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of the attention."""

    name: str
    inputs: int
    outputs: int
    heads: int
    """Heads that tensor parallelism can divide it by; 1 where every GPU keeps it whole."""
    part: Literal["attention", "indexer", "compressor"] = "attention"

    @property
    def parameters(self) -> int:
        """Inputs x outputs."""
        return self.inputs * self.outputs

    def parameters_on_gpu(self, tp: int) -> float:
        """Parameters that one of `tp` GPUs holds; more GPUs than heads hold copies."""
        return self.parameters / min(tp, self.heads)


@dataclass(frozen=True, slots=True)
class Batch:
    """Equal sequences that a rank computes in a step."""

    phase: Phase
    sequences: float
    new: float
    """Tokens of each that are computed."""
    cached: float
    """Tokens of each before them."""

    @property
    def tokens(self) -> float:
        """New ones, of all sequences."""
        return self.sequences * self.new

    @property
    def context(self) -> float:
        """KV tokens of one sequence at the end of the step."""
        return self.new + self.cached


class AttentionForm(NamedTuple):
    """One way to compute the same attention."""

    name: str
    up_to: float = inf
    """KV tokens of the longest sequence of a step that runs it."""


class Attention(ABC):
    """One kind of attention, in the shapes of a model. Everything is of one layer, on one GPU."""

    name: ClassVar[str]
    """As the catalog has it; blocks that a profile measured as a whole carry it."""
    label: ClassVar[str]
    """As the field writes it."""
    latent: ClassVar[bool] = False
    """The cache holds a latent for all heads, which TP does not shard, and not keys and values by head."""
    sparse: ClassVar[bool] = False
    """Queries attend to chosen keys; engines have rules of their own for that."""

    def __init__(self, model: Model, group: LayerGroup) -> None:
        self.model, self.group = model, group

    def words(self) -> str:
        """The kind in words for the user."""
        return self.label

    @abstractmethod
    def matrices(self) -> tuple[Matrix, ...]:
        """The weights of a layer."""

    @property
    def absorbed_parameters(self) -> int:
        """Parameters of the matrices that an absorbed form multiplies with in a further copy; 0 without one."""
        return 0

    @property
    def head_elements(self) -> int:
        """Elements of one head's keys and values of one token, as they would be cached uncompressed."""
        return 2 * self.model.head_dim

    @abstractmethod
    def token_bytes(self, kv_cache: str, tp: int = 1) -> float:
        """Cache that each further token of a long sequence takes."""

    def cache_bytes(self, tokens: int, kv_cache: str, tp: int = 1) -> float:
        """Cache of a sequence of `tokens` tokens.

        A kind with a window, or with a state for each request, says here how it differs from a straight line through
        nothing; `token_bytes` is then the slope that is left in the end, and may be 0.
        """
        return tokens * self.token_bytes(kv_cache, tp)

    def state_bytes(self) -> float:
        """Of a request, whatever its length and the cache's format: what its next entries are computed from."""
        return 0.0

    def index_bytes(self) -> float:
        """Of `token_bytes`, what serves to choose keys."""
        return 0

    @abstractmethod
    def forms(self, layout: Layout, phase: Phase) -> tuple[AttentionForm, ...]:
        """The forms that run in a phase, for rising lengths of the longest sequence."""

    def form(self, layout: Layout, phase: Phase, context: float) -> str:
        """The form of a step whose longest sequence has `context` KV tokens."""
        return next(form.name for form in self.forms(layout, phase) if context <= form.up_to)

    def kinks(self, layout: Layout, phase: Phase) -> tuple[float, ...]:
        """Mean contexts at which the seconds of a phase bend or jump."""
        return ()

    @abstractmethod
    def parts(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """What runs inside the block, from the projections to o_proj."""

    def options(self, layout: Layout, batch: Batch, form: str) -> dict[str, str]:
        """What selects the block's measured table beside its shape."""
        return {"kv_cache": layout.kv_cache}

    def widths(self) -> dict[str, float]:
        """What the block depends on beside its heads; see `Operation.widths`."""
        return {}

    def operations(self, layout: Layout, batch: Batch, layers: int, form: str) -> list[Operation]:
        """Attention of a chunk or of a decode step, in `layers` layers."""
        return [self.block(layout, batch, layers, form)]

    def block(self, layout: Layout, batch: Batch, layers: int, form: str) -> Operation:
        """The whole attention of a layer, as modules are measured (projections, quantisation, absorb BMMs, indexer,
        core and o_proj), under the name of the module tables; its parts are what runs inside."""
        shape: dict[str, float] = {"heads": layout.heads, "batch": batch.sequences}
        shape |= (
            {"new": batch.new, "cached": batch.cached}
            if batch.phase == "prefill"
            else {"context": batch.cached + batch.new, "queries": batch.new}
        )
        kernel, inside = f"{self.name}_{batch.phase}_block", partial(self.parts, layout, batch, layers, form)
        options, widths = self.options(layout, batch, form), self.widths()
        return Block.of(inside, kernel, shape, layout.attention_weights, layers, options, widths)


def projection(layout: Layout, name: str, m: float, n: float, k: float, layers: int) -> list[Operation]:
    """A linear layer of the attention, with the quantisation of its input where the weights are FP8."""
    dtype = layout.attention_weights
    matrix = ops.gemm(name, "attention", m, n, k, dtype, layers)
    if dtype == "bf16":
        return [matrix]
    return [ops.quantize(f"quantise for {name}", "attention", m, k, layers, dtype), matrix]
