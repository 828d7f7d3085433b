"""What runs at the same time in a step: seconds of its stages -> how long the step lasts.

The stages of one layer: attention (its projections, then its core and the rest), gate, dispatch, routed experts,
combine; the shared expert, which needs no exchange; dense layers, which have none.

One batch: one after the other; the shared expert may run beside the exchange and, in decode, the routed ones.

Two half batches, A and B, on one stream of computation, while the other half exchanges. Engines order them in two ways:

- `alternating` (SGLang's and DeepSeek's prefill, vLLM): the halves take turns at every stage, so that
      attention B beside dispatch A; experts A beside dispatch B; experts B and shared A beside combine A;
      attention A of the next layer and shared B beside combine B.
  Each of the four lasts as long as the longer of its two; both end before the next begins, because what follows needs
  both.
- `staged` (SGLang's and DeepSeek's decode): B runs two of five stages behind A, so that of either half
      the dispatch runs beside the shared expert of its own half and the projections of the other;
      the combine beside the other half's attention core; nothing beside the experts.

Sources: SGLang `batch_overlap/operations_strategy.py` (order of operations, yield points and `tbo_delta_stages`);
DeepSeek open-infra-index, day 6 (five-stage pipeline of decode); vLLM `docs/design/dbo.md`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sim.kernels import plays
from sim.model.operations import Operation, Stream

Floats = NDArray[np.float64]
Schedule = Literal["alternating", "staged"]
Stage = Literal[
    "attention", "projections", "layers", "dense", "experts", "shared", "dispatch", "combine", "once"
]
STAGES: Final[tuple[Stage, ...]] = (
    "projections", "layers", "dense", "experts", "shared", "dispatch", "combine", "once",
)  # fmt: skip
"""All but attention as a whole, which depends on the context too."""


@dataclass(frozen=True)
class StepOverlap:
    """What runs at the same time in a step, and what that costs."""

    shared_expert: bool = False
    """The shared expert runs beside the exchange of the routed ones, instead of before it."""
    beside_experts: bool = False
    """It also hides beside the routed experts themselves: in decode they wait for their weights and leave room."""
    two_batch: bool = False
    """Two half batches take turns: one computes while the other exchanges (DeepSeek-V3 report, section 3.4)."""
    schedule: Schedule = "alternating"
    """In which order the half batches take turns."""
    slowdown: float = 1.0
    """Of the computing half while the other exchanges: SMs of the GPU / SMs that the exchange leaves."""
    contention: float = 1.0
    """Of an exchange that runs beside computation, over the same exchange alone."""
    send_s: float = 0.0
    """SM time of the kernels that send and receive one low-latency dispatch, at no tokens."""
    send_per_token_s: float = 0.0
    """More of it for each token per rank."""
    combine_sends: float = 1.0
    """The same of a combine, over that of a dispatch."""
    exchanging: float = 1.0
    """Share of the layers that exchange: MoE layers / layers."""
    launch_s: float = 0.0
    """What an operation costs the host to launch; 0 where CUDA graphs launch the whole step."""
    summed: bool = False
    """Whether gathered tokens are as many as the ranks have together. Else each rank is padded to the fullest."""
    graph_tokens: float = 0.0
    """Up to so many tokens a step replays piecewise CUDA graphs, and launches only what stands between them."""

    def parts(self, batch: float) -> int:
        """Into how many equal parts a batch is split; a single sequence or token cannot be."""
        return 2 if self.two_batch and batch >= 2 else 1

    def stage(self, operation: Operation) -> Stage:
        """Where in a step an operation other than attention belongs.

        What runs on all ranks' tokens one after the other belongs with the routed experts, which do so too.
        """
        pooled = operation.gathered and self.summed and not (self.two_batch or self.shared_expert)
        return "experts" if pooled else stage_of(operation)

    def stretch(self, stream: Stream, parts: int) -> float:
        """How much longer an operation of the stream takes when the batch runs in `parts` parts."""
        if parts == 1 or stream == "once":
            return 1.0
        return self.contention if stream == "exchange" else self.slowdown

    def times(self, operation: Operation, parts: int) -> float:
        """How many times the price of the operation enters a step whose batch runs in `parts` parts."""
        return (1 if operation.stream == "once" else parts) * self.stretch(operation.stream, parts)

    def launched(self, operations: Iterable[Operation], parts: int, tokens: float) -> int:
        """How often the host launches something in a step of `tokens` on the rank, in `parts` parts."""
        return sum(launches(o, parts, captured=tokens <= self.graph_tokens) for o in operations)

    def sends_s(self, operations: Iterable[Operation], parts: int) -> float:
        """SM time of a step's dispatches, in which the other half cannot compute: it stands between computations.

        Only the low-latency mode has it: its kernels take all SMs to send and to receive, and none in between
        (README of deepseek-ai/profile-data). The normal mode keeps `slowdown`'s SMs for itself all the time.
        """
        return sum(
            parts * o.layers * (self.send_s + self.send_per_token_s * o.shape["tokens"])
            for o in operations
            if parts > 1 and o.kernel == "dispatch" and o.options["mode"] == "low_latency"
        )


def stage_of(operation: Operation) -> Stage:
    """Where in a step an operation other than attention belongs, all ranks being equal."""
    if operation.stream == "once":
        return "once"
    if operation.stream == "exchange":
        return "dispatch" if plays(operation.kernel, "outward") else "combine"
    if operation.stream == "shared":
        return "shared"
    if operation.stream == "experts":
        return "experts"
    return "dense" if operation.group == "dense" else "layers"


def projections(block: Operation) -> list[Operation]:
    """What an attention block runs before anything reads its keys: there the context does not matter."""
    before: list[Operation] = []
    for part in block.parts:
        if plays(part.kernel, "core", "indexer"):
            break
        before.append(part)
    return before


def launches(operation: Operation, parts: int, captured: bool = False) -> int:
    """How often a step whose batch runs in `parts` parts launches the operation, its own parts counted one by one.

    captured: by piecewise CUDA graphs. Attention's core stays outside, as do the ends of the step; a graph is replayed
    after each piece of the core. Sources: SGLang `register_split_op` (radix_attention.py, dsa_indexer.py), vLLM
    `splitting_ops`, TensorRT-LLM `torch_compile_and_piecewise_cuda_graph.md`.
    """
    if operation.parts and captured:
        eager = [plays(part.kernel, "core", "indexer") for part in operation.parts]
        graphs = sum(here and not after for here, after in zip(eager, [*eager[1:], False], strict=True))
        return (sum(eager) + graphs) * operation.layers * parts
    if operation.parts:
        return sum(launches(part, parts) for part in operation.parts)
    if operation.kernel == "host" or (captured and operation.stream != "once"):
        return 0
    return operation.layers * (1 if operation.stream == "once" else parts)


@dataclass(slots=True)
class Line:
    """Seconds of a step at one load by those of its attention:

    max(launch, base + alone x attention + sum over k = 1, 2 of max(beside x attention + inline_k, exchange_k))
    """

    base: float
    alone: float
    beside: float
    inline_1: float
    exchange_1: float
    inline_2: float
    exchange_2: float
    launch: float

    def seconds(self, attention: float) -> float:
        """Seconds of the step."""
        total = self.base + self.alone * attention
        if self.beside:
            core = self.beside * attention
            total += max(core + self.inline_1, self.exchange_1) + max(core + self.inline_2, self.exchange_2)
        return total if total > self.launch else self.launch


@dataclass(slots=True)
class Timeline:
    """What a step's seconds are made of once its load is known, scalars or arrays over loads; see `Line`.

        base = rest + sum over k = 1, 2 of max(experts / 2 + aside_k, hidden_k)

    attention: of the slowest rank, all layers. experts: of the most loaded rank, which sees the tokens of all ranks.
    Without half batches nothing stands beside attention or experts.
    """

    rest: Any
    alone: Any
    beside: Any
    inline_1: Any
    exchange_1: Any
    inline_2: Any
    exchange_2: Any
    aside_1: Any
    hidden_1: Any
    aside_2: Any
    hidden_2: Any
    launch: Any

    def seconds(self, experts: float, attention: float) -> float:
        """`line(experts).seconds(attention)`, for loads that hardly come twice."""
        if self.beside or self.hidden_1 or self.hidden_2:
            return self.line(experts).seconds(attention)
        total: float = self.rest + experts + self.aside_1 + self.aside_2 + self.alone * attention
        return total if total > self.launch else self.launch

    def line(self, experts: float) -> Line:
        """With the seconds of the experts, at one load."""
        half = experts / 2
        routed = max(half + self.aside_1, self.hidden_1) + max(half + self.aside_2, self.hidden_2)
        base, beside = self.rest + routed, self.beside
        if not beside:
            return Line(base, self.alone, 0.0, 0.0, 0.0, 0.0, 0.0, self.launch)
        overlapped = self.inline_1, self.exchange_1, self.inline_2, self.exchange_2
        return Line(base, self.alone, beside, *overlapped, self.launch)


def timeline(
    seconds: Mapping[Stage, Any], overlap: StepOverlap, halves: bool, sends: Any = 0.0, launched: Any = 0.0
) -> Timeline:
    """How the stages of a step share its time.

    seconds: of every stage but attention, over all layers and both halves; `projections` is a part of attention.
    halves: whether the batch runs in two parts. sends: see `StepOverlap.sends_s`. launched: operations.
    """
    s, nothing = seconds, 0.0 * seconds["once"]
    fixed, launch_s = s["dense"] + s["once"], launched * overlap.launch_s + nothing
    if not halves:
        exchange, shared = s["dispatch"] + s["combine"], s["shared"]
        if overlap.shared_expert:
            room = exchange + s["experts"] if overlap.beside_experts else exchange
            shared = shared - np.minimum(shared, room)
        return Timeline(fixed + s["layers"] + exchange + shared, 1.0 + nothing, *(nothing,) * 9, launch_s)
    received = sends * overlap.combine_sends
    alone, beside = 1.0 - overlap.exchanging + nothing, overlap.exchanging / 2 + nothing
    if overlap.schedule == "staged":
        before = overlap.exchanging * s["projections"]
        dispatch = np.maximum(s["dispatch"], sends + s["shared"] + before)
        combine = (received + s["layers"] - before) / 2, s["combine"] / 2
        return Timeline(fixed + dispatch, alone, beside, *combine, *combine, *(nothing,) * 4, launch_s)
    sent, back = s["dispatch"] / 2, s["combine"] / 2
    return Timeline(
        rest=fixed,
        alone=alone,
        beside=beside,
        inline_1=(s["layers"] + sends) / 2,
        exchange_1=sent,
        inline_2=(s["layers"] + s["shared"] + received) / 2,
        exchange_2=back,
        aside_1=sends / 2 + nothing,
        hidden_1=sent,
        aside_2=(s["shared"] + received) / 2,
        hidden_2=back,
        launch=launch_s,
    )
