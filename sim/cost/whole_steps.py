"""Whole steps of a real engine, as `tokenworks calibrate step` fitted them to its logs and traces: a load -> seconds.

A step's seconds are a sum over what it is made of, by factors that are never negative; `rest_of` and `attention_of`
say how much of each a load has. Prompts (`prefill`, tokens of decoding sequences beside them included) and decode have
factors of their own, as small batches wait for weights and large ones for arithmetic.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sim.catalog import Model
from sim.catalog.profiles import HEADER
from sim.cost.bounds import MOST_US
from sim.cost.fits import ProfileError
from sim.cost.latency import CostModel, Latency, PricedBy
from sim.cost.profile import Profile, load_profile
from sim.model.layout import Phase
from sim.model.operations import WHOLE_STEP, Operation

SECTION: Final = "steps"
"""Of a profile's header."""
SOURCE: Final = "tokenworks calibrate step"
"""The source of such profiles."""
PHASES: Final[tuple[Phase, ...]] = ("prefill", "decode")
BEYOND: Final = (64, 256, 1024, 4096)
"""Tokens of a rank beyond which each may cost more than those before, as GEMMs turn from traffic to arithmetic: a
factor of four apart, from less than the fewest rows at which the FP8 products of an H200 or B200 turn."""
REST: Final = ("step", "experts", "tokens", *(f"beyond_{least}" for least in BEYOND))
ATTENTION: Final = ("keys", "selected", "held")
PARTS: Final = (*REST, *ATTENTION)
"""What a step is made of; see `rest_of` and `attention_of`."""


def rest_of(model: Model, tokens: float, ranks: int) -> dict[str, float]:
    """What a step of `tokens` new ones on each of `ranks` attention-DP ranks has beside attention: the step itself;
    the routed experts of a layer that any token chose, if all are equally popular; tokens of a rank, and those beyond
    so many."""
    pooled = tokens * ranks
    chosen = model.n_routed * (1 - (1 - model.top_k / model.n_routed) ** pooled) if model.n_routed else 0.0
    beyond = {f"beyond_{least}": max(0.0, tokens - least) for least in BEYOND}
    return {"step": 1.0, "experts": chosen, "tokens": tokens, **beyond}


def attention_of(model: Model, tokens: float, context: float, held: float) -> dict[str, float]:
    """What attention has where `tokens` queries of a rank attend to `context` keys on average: all keys, those that an
    indexer selects of them, and the KV tokens that its prompts hold (0 in decode)."""
    chosen = min(context, model.index_topk) if model.index_topk else 0.0
    return {"keys": tokens * context, "selected": tokens * chosen, "held": held}


@dataclass(frozen=True)
class PhaseFit:
    """One phase's factors, and the steps behind them."""

    seconds: Mapping[str, float]
    """Of one of each of PARTS."""
    tokens: tuple[float, float]
    """Least and most new tokens of a rank in the steps that were fitted."""
    context: tuple[float, float]
    """Least and most keys that each of them attended to on average."""
    steps: int
    loads: int
    """Different ones."""
    error: Mapping[str, float]
    """Median and p90 of |predicted / measured - 1|, each load predicted from the others; empty where they were too
    few."""

    def of(self, amounts: Mapping[str, float]) -> float:
        """Seconds of so much of each part."""
        return sum(self.seconds.get(part, 0.0) * amount for part, amount in amounts.items())

    def covers(self, tokens: float, context: float | None = None) -> bool:
        """Whether steps of so many tokens, and of such a context, were among those fitted."""
        known = self.tokens[0] <= tokens <= self.tokens[1]
        return known and (context is None or self.context[0] <= context <= self.context[1])


@dataclass(frozen=True)
class WholeSteps:
    """The `steps` of a profile: those of one model in one layout."""

    gpu: str
    engine: str
    """Of the profile."""
    model: str
    weights: str | None
    kv_cache: str | None
    """Formats, as in a scenario's `precision`; None where the profile does not tell."""
    gpus: int
    tp: int
    ep: int
    draft_tokens: int
    layers: int
    """That the factors are for: the model's, or those of the one depth that was measured."""
    depths: tuple[int, ...]
    """Layers of the models that were measured."""
    read: str
    """What it was read from, for people."""
    phases: Mapping[Phase, PhaseFit]
    families: Mapping[Phase, Mapping[str, float]]
    """Seconds of a step's kernels by family, the mean over the loads of the deepest model; empty where only logs were
    read."""

    @property
    def layout(self) -> tuple[int, int, int]:
        """GPUs of a worker, of an attention rank, and of the experts."""
        return self.gpus, self.tp, self.ep

    def json(self) -> dict[str, Any]:
        """The section of the header; `parsed` is the reverse. GPU and engine stand beside it."""
        told = asdict(self)
        del told["gpu"], told["engine"]
        told["depths"] = [*self.depths]
        for phase, fit in told.pop("phases").items():
            told[phase] = {**fit, "tokens": [*fit["tokens"]], "context": [*fit["context"]]}
        return told


def whole_steps_of(profile: Profile) -> WholeSteps | None:
    """The whole steps that a profile holds; None where it holds kernels. Raises ProfileError where they cannot be."""
    if profile.header.get(SECTION) is None:
        return None
    try:
        return parsed(profile.header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ProfileError(
            f"{profile.path / HEADER}: {SECTION}: expected the steps that `tokenworks calibrate step` writes ({said})"
        ) from None


def parsed(header: Mapping[str, Any]) -> WholeSteps:
    """The whole steps of a header. Raises KeyError, TypeError or ValueError where its section is none."""
    section = header[SECTION]
    weights, kv_cache = (
        None if (said := section.get(key)) is None else str(said) for key in ("weights", "kv_cache")
    )
    phases = {phase: _phase(section[phase]) for phase in PHASES if phase in section}
    if not phases:
        raise ValueError("no decode and no prefill")
    return WholeSteps(
        **{key: int(section[key]) for key in ("gpus", "tp", "ep", "draft_tokens", "layers")},
        gpu=str(header["gpu"]),
        engine=str(header["engine"]),
        model=str(section["model"]),
        weights=weights,
        kv_cache=kv_cache,
        depths=tuple(int(depth) for depth in section["depths"]),
        read=str(section["read"]),
        phases=phases,
        families={phase: dict(found) for phase, found in section["families"].items()},
    )


def _phase(section: Mapping[str, Any]) -> PhaseFit:
    seconds = {part: float(each) for part, each in section["seconds"].items()}
    if wrong := [
        part for part, each in seconds.items() if part not in PARTS or not 0 <= each < MOST_US * 1e-6
    ]:
        raise ValueError(f"seconds.{wrong[0]}: expected one of {', '.join(PARTS)}, 0 to {MOST_US * 1e-6:g}")
    (least, most), (short, long) = section["tokens"], section["context"]
    ends = (float(least), float(most)), (float(short), float(long))
    error = {name: float(each) for name, each in section["error"].items()}
    return PhaseFit(seconds, *ends, int(section["steps"]), int(section["loads"]), error)


def steps_named(profile: str | None) -> WholeSteps | None:
    """The whole steps of a profile by its name or path; None where it has none. Raises ProfileError."""
    return whole_steps_of(load_profile(profile)) if profile else None


@dataclass(frozen=True)
class WholeStepCost:
    """Prices steps as wholes, in two parts: what attention's contexts add, and the rest. All else is priced behind."""

    cost: CostModel
    steps: WholeSteps
    model: Model
    name: str
    """Of the profile."""

    def knows(self, operation: Operation) -> bool:
        """The two parts of a step whose phase was fitted."""
        return operation.kernel == WHOLE_STEP or self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of the part: `fitted` inside the loads that were measured, `extrapolated` outside of them."""
        if operation.kernel != WHOLE_STEP:
            return self.cost.price(operation)
        shape, phase = operation.shape, operation.options["phase"]
        fit, tokens = self.steps.phases[phase], shape["tokens"]  # type: ignore[index]
        if "context" in shape:
            amounts = attention_of(self.model, tokens, shape["context"], shape["held"])
        else:
            amounts = rest_of(self.model, tokens, self.steps.gpus // self.steps.tp)
        known: PricedBy = "fitted" if fit.covers(tokens, shape.get("context")) else "extrapolated"
        source = f"whole {phase} steps of {self.name} ({self.steps.read})"
        return Latency(fit.of(amounts), known, source, "launch", own=True)
