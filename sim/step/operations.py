"""A batch on every rank of a worker -> the operations of its step.

The one place that puts attention, experts, speculation and the engine's own overhead together. `explain`
prices these operations one by one; `sim.step.surface` prices them on a grid, once per deployment.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from sim.catalog import Engine, Model
from sim.model import layers
from sim.model.attention import Batch, Forms, attention_operations
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import HOST_STEP, Operation, gemm
from sim.step.overlap import StepOverlap

Routing = Callable[[float], ExpertRows]
"""Tokens per attention-DP rank -> load of the most loaded expert rank."""


@dataclass(frozen=True)
class StepOperations:
    """What one worker runs in a step."""

    layout: Layout
    routing: Routing
    engine: Engine
    draft_tokens: int = 0
    overlap: StepOverlap = StepOverlap()  # noqa: RUF009 - frozen
    block_tokens: int = 0
    """Drafts that one pass proposes together, however many of them are verified; 0: one after the other."""
    adaptive: tuple[tuple[int, int], ...] = ()
    """(largest batch of the fullest rank, drafts), rising; beyond the last none. Empty: always `draft_tokens`."""
    every_step: tuple[Operation, ...] = ()
    """What is spread over all steps, whatever they compute: fetching the experts of a new placement."""

    def levels(self) -> list[tuple[float, "StepOperations"]]:
        """(largest batch, what decode steps run up to there), the last one without end."""
        if not self.adaptive:
            return [(inf, self)]
        steps = [(float(batch), replace(self, draft_tokens=k, adaptive=())) for batch, k in self.adaptive]
        return [*steps, (inf, replace(self, draft_tokens=0, adaptive=()))]

    def at(self, batch: float) -> "StepOperations":
        """What decode steps run while the fullest rank holds `batch` sequences."""
        return next(step for up_to, step in self.levels() if batch <= up_to)

    def decode_attention(self, sequences: float, context: float) -> list[Operation]:
        """Attention of a decode step that verifies 1 + drafts tokens per sequence over `context` KV tokens.

        The drafts' own attention (one layer of the MTP module per pass, see `_draft`) is included.
        """
        cached, model = max(context - 1, 0.0), self.layout.model
        verified = Batch("decode", sequences, 1 + self.draft_tokens, cached)

        def draft(name: str, batch: Batch, passes: int) -> list[Operation]:
            operations = attention_operations(self.layout, (model.module_group(passes),), batch)
            return [replace(o, name=f"{o.name} ({name})") for o in operations]

        step = attention_operations(self.layout, model.attention, verified)
        if self.draft_tokens and self.block_tokens:
            return step + draft("block of drafts", replace(verified, new=self.block_tokens), model.nextn)
        if self.draft_tokens:
            step += draft("first draft", verified, 1)
        if self.draft_tokens > 1:
            step += draft("later drafts", replace(verified, new=1), self.draft_tokens - 1)
        return step

    def decode_rest(self, sequences: float) -> list[Operation]:
        """Everything else of a decode step of `sequences` on every rank."""
        verify = replace(self.layout, mtp=False)
        tokens = sequences * (1 + self.draft_tokens)
        step = layers.token_operations(verify, tokens, self.routing(tokens), tokens)
        if self.draft_tokens:
            step += (
                self._draft_block(tokens, sequences)
                if self.block_tokens
                else self._draft("first draft", tokens, sequences, 1)
            )
            step.append(replace(_engine_time("host for drafts", self.engine.draft_host_s), stream="once"))
        if self.draft_tokens > 1 and not self.block_tokens:
            step += self._draft("later drafts", sequences, sequences, self.draft_tokens - 1)
        return step + self._overhead()

    def _draft(self, name: str, tokens: float, logits: float, passes: int) -> list[Operation]:
        """Passes of the MTP module: eh_proj, its MoE layer and the shared head (DeepSeek-V3 report, section 2.2).

        The first pass takes the hidden states of all verified tokens (the module's cache must hold the accepted ones;
        engines run the rejected ones along) and gives one draft per sequence; each later one takes the draft before.
        """
        hidden = self.layout.model.hidden
        module = replace(self.layout, mtp=False, model=self.layout.model.only_layer())
        operations = [
            gemm("eh_proj", "dense", tokens, hidden, 2 * hidden, "bf16"),
            *layers.token_operations(module, tokens, self.routing(tokens), logits),
        ]
        return [
            replace(o, name=f"{name}: {o.name}", stream="once", layers=o.layers * passes) for o in operations
        ]

    def _draft_block(self, verified: float, sequences: float) -> list[Operation]:
        """One pass of DSpark (arXiv 2607.05147; SGLang pull request 29538): the target's states of the verified tokens,
        of three layers, are fused; the drafter's layers see the whole block; the Markov head then takes one draft after
        the other. The confidence head is next to nothing."""
        model = self.layout.model
        layer = replace(self.layout, mtp=False, model=model.only_layer())
        block = sequences * self.block_tokens
        body = layers.token_operations(layer, block, self.routing(block), 0.0)
        head = layers.head_operations(layer, block)
        markov = gemm("Markov head", "dense", sequences, model.vocab, model.markov_rank, "bf16")
        operations = [
            _fused_states(model, verified),
            *(replace(o, layers=o.layers * model.nextn) for o in body),
            *head,
            replace(markov, layers=self.block_tokens),
        ]
        return [replace(o, name=f"block of drafts: {o.name}", stream="once") for o in operations]

    def prefill_attention(
        self, prompts: float, new: float, cached: float, forms: Forms | None = None
    ) -> list[Operation]:
        """Attention of a prefill step: `prompts` prompts of `new` tokens each, behind `cached` ones.

        `forms`: of each group of layers; None: those that prompts of this length run.
        """
        model = self.layout.model
        groups = model.layer_groups(self.layout.mtp and not model.drafts_in_block)
        return attention_operations(self.layout, groups, Batch("prefill", prompts, new, cached), forms)

    def prefill_rest(self, tokens: float) -> list[Operation]:
        """Everything else of a prefill step of `tokens` on every rank; the head runs on one last token
        (its cost is reading the weights). MTP modules see all of them, a drafter of blocks only the target's states."""
        step = layers.token_operations(self.layout, tokens, self.routing(tokens), 1.0)
        if self.layout.mtp and self.layout.model.drafts_in_block:
            step.append(replace(_fused_states(self.layout.model, tokens), stream="once"))
        return step + self._overhead()

    def _overhead(self) -> list[Operation]:
        """The engine's own time: per step on the host, and per layer for the kernels that are not listed."""
        step = _engine_time(HOST_STEP, self.engine.host_overhead_s)
        layer = _engine_time("small kernels", self.engine.small_op_s)
        return [
            replace(step, stream="once"),
            replace(layer, layers=self.layout.model.layers),
            *self.every_step,
        ]


def _fused_states(model: Model, tokens: float) -> Operation:
    """What a drafter of blocks attends to: the states of some of the target's layers, side by side, projected."""
    width = model.dspark_target_layers * model.hidden
    return gemm("states for the drafter", "dense", tokens, model.hidden, width, "bf16")


def _engine_time(name: str, seconds: float) -> Operation:
    return Operation(name, "other", "host", {"seconds": seconds}, "bf16", 0.0, 0.0)


def typical_prompts(tokens: float, context: float) -> tuple[float, float, float]:
    """(batch, new, cached) of equal prompts with `tokens` new tokens in all that attend to `context` keys on average.

    The stand-in for a mixed batch, with the same tokens and the same pairs: one prompt behind a cached prefix or,
    where the mean is shorter than a single prompt's (tokens + 1) / 2, several prompts without one.
    """
    alone = (tokens + 1) / 2
    if context >= alone:
        return 1.0, tokens, context - alone
    new = max(1.0, 2 * context - 1)
    return tokens / new, new, 0.0


def prompts_of(tokens: float, context: float, new: float) -> tuple[float, float, float]:
    """(batch, new, cached) of equal prompts of `new` tokens each, or of one if they are more than `tokens`, with
    `tokens` new tokens in all that attend to `context` keys on average."""
    new = max(1.0, min(new, tokens))
    return tokens / new, new, max(0.0, context - (new + 1) / 2)
