"""A step that a log or a trace tells: what it computed on one attention-DP rank, and how long it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sim.model.layout import Phase


class NoSteps(ValueError):
    """A file that holds no steps, or not all that is needed of them; says which file and what was expected."""


@dataclass(frozen=True)
class TimedStep:
    """One step. It is of `prefill` where it computes tokens of prompts, beside decoding sequences or not."""

    seconds: float
    sequences: int = 0
    """That decode."""
    context: float = 0.0
    """Their KV tokens, on average."""
    tokens: int = 0
    """New ones of prompts."""
    pairs: float = 0.0
    """Of these with the keys that they attend to."""
    held: float = 0.0
    """KV tokens of the prompts, those before the step and those in it."""
    layers: int = 0
    """Of the model that ran; 0 where a file has just been read, which does not tell."""
    families: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds of its kernels by family."""

    @property
    def phase(self) -> Phase:
        """Whose factors it tells."""
        return "prefill" if self.tokens else "decode"

    @property
    def load(self) -> tuple[float, ...]:
        """What it computed: steps of the same load differ in their seconds alone."""
        return (
            self.layers,
            self.sequences,
            round(self.context),
            self.tokens,
            round(self.pairs),
            round(self.held),
        )


@dataclass(frozen=True)
class Beside:
    """What is said beside a file, as its steps do not tell it."""

    context: float | None = None
    """KV tokens of decoding sequences on average."""
    cached: float = 0.0
    """KV tokens before each prompt's new ones, on average."""

    def context_in(self, path: Path, told: float | None) -> float:
        """The context that a step of the file tells, or else the one said beside it. Raises NoSteps."""
        if told is not None:
            return told
        if self.context is None:
            raise NoSteps(f"{path}: does not tell the context of decoding sequences: expected --context N")
        return self.context

    def prompts(self, count: int, tokens: int, cached: float | None = None) -> tuple[float, float]:
        """Pairs and held KV tokens of equal prompts with so many new tokens in all; `cached`: of each."""
        if not tokens:
            return 0.0, 0.0
        before = self.cached if cached is None else cached
        each = tokens / max(count, 1)
        return tokens * (before + (each + 1) / 2), count * before + tokens
