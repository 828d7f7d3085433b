"""What a workload asks for on average."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Arrivals, Length, Scenario
from sim.workload import RequestStream, requests

Floats = NDArray[np.float64]

QUANTILES = 1200
"""Equal shares of the requests: their lengths stand for all where lengths must be told apart."""
MIDDLES = (np.arange(QUANTILES) + 0.5) / QUANTILES
GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, whole numbers cut off, spread evenly: prompts of every length meet answers of every length."""
FAITHFUL = 1e-3
"""Whole tokens stand for a distribution where they change its mean by less than this share."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Means of a workload. Contexts are means over TOKENS, so that long requests weigh as much as they work."""

    input_tokens: float
    """Prompt tokens of a request."""
    cached_tokens: float
    """Prompt tokens of a request that hit the prefix cache."""
    output_tokens: float
    """Generated tokens of a request."""
    decode_context: float
    """KV tokens that a generated token attends to: the prompt and half of the answer."""
    decode_context_sd: float
    """Standard deviation of the same."""
    new_quantiles: tuple[float, ...]
    """Computed prompt tokens at QUANTILES equal shares of the requests, rising, scaled to their mean."""
    rate_per_s: float | None = None
    """Arrivals per second of requests that can be served; None in a closed loop and in an offline batch."""
    concurrency: int | None = None
    """Requests in flight of a closed loop."""
    requests: int | None = None
    """How many come; None where only a duration ends them."""
    answers_alike: bool = False
    """All answers have the same length: those that begin together end together."""
    too_long: float = 0.0
    """Share of the requests that no rank holds, or the model does not take: they are rejected, and count nowhere."""

    @property
    def new_tokens(self) -> float:
        """Prompt tokens of a request that are computed."""
        return self.input_tokens - self.cached_tokens


def demand_of(scenario: Scenario, base_folder: Path | None = None, most_tokens: float = math.inf) -> Demand:
    """The scenario's workload as means: from its distributions, or counted over its trace.

    With I and O the lengths of prompt and answer (independent of each other) and f the cached fraction,

        decode_context = E[I] + E[O^2] / (2 E[O])
        its variance   = Var[I] + E[O^3] / (3 E[O]) - (E[O^2] / (2 E[O]))^2

    At least one token of a prompt is computed, as in the simulation; f is that much below 1.

    most_tokens: prompt and answer of a request that is served. Where it cuts a distribution, and where lengths are so
    short that whole tokens matter, QUANTILES pairs of a prompt and an answer are counted instead.

    Prefix hits that a trace's hashes would find are not counted: only the simulation knows them.
    Raises DeploymentError or ScenarioError where a file of the workload is missing or broken, and DeploymentError where
    no request is short enough.
    """
    workload = scenario.workload
    lengths = workload.lengths
    if lengths is None or lengths.input.histogram or lengths.output.histogram:
        return _traced(scenario, requests(scenario, 0, base_folder), most_tokens)
    prompts, answers = _whole(lengths.input), _whole(lengths.output)
    answers = answers[np.argsort(np.argsort(np.arange(QUANTILES) * GOLDEN % 1))]
    means = _moments(lengths.input), _moments(lengths.output)
    faithful = all(
        abs(whole.mean() / mean - 1) < FAITHFUL
        for whole, (mean, *_) in zip((prompts, answers), means, strict=True)
    )
    fraction, alike = workload.cached_fraction or 0.0, lengths.output.constant is not None
    rate_per_s, concurrency = _rate(workload.arrivals), _concurrency(workload.arrivals)
    if not faithful or (prompts + answers > most_tokens).any():
        counted = _counted(prompts, answers, fraction * prompts, most_tokens, rate_per_s)
        return replace(counted, requests=workload.requests, concurrency=concurrency, answers_alike=alike)
    (prompt, prompt_squares, _), (answer, answer_squares, answer_cubes) = means
    fraction = min(fraction, 1 - 1 / prompt)
    age = answer_squares / (2 * answer)
    variance = prompt_squares - prompt**2 + answer_cubes / (3 * answer) - age**2
    return Demand(
        input_tokens=prompt,
        cached_tokens=fraction * prompt,
        output_tokens=answer,
        decode_context=prompt + age,
        decode_context_sd=math.sqrt(max(0.0, variance)),
        new_quantiles=_scaled(_shares(lengths.input), (1 - fraction) * prompt),
        rate_per_s=rate_per_s,
        concurrency=concurrency,
        requests=workload.requests,
        answers_alike=alike,
    )


def _moments(length: Length) -> tuple[float, float, float]:
    """(E[X], E[X^2], E[X^3]) of a distribution with parameters.

    For the lognormal E[X^k] = mean^k (1 + cv^2)^(k (k - 1) / 2).
    """
    if length.constant is not None:
        constant = float(length.constant)
        return constant, constant**2, constant**3
    if length.uniform is not None:
        low, high = length.uniform
        mean, variance = (low + high) / 2, ((high - low + 1) ** 2 - 1) / 12
        return mean, mean**2 + variance, mean**3 + 3 * mean * variance
    assert length.lognormal is not None
    mean, spread = length.lognormal.mean, 1 + length.lognormal.cv**2
    return mean, mean**2 * spread, mean**3 * spread**3


def _shares(length: Length) -> Floats:
    """Mean lengths of QUANTILES equal shares of a distribution with parameters, rising.

    Of a lognormal with E[X] = m below its quantile at z: E[X; X < x] = m Phi(z - sigma).
    """
    if length.lognormal is not None:
        sigma = math.sqrt(math.log1p(length.lognormal.cv**2))
        below = ndtr(ndtri(np.linspace(0, 1, QUANTILES + 1)) - sigma)
        return np.asarray(length.lognormal.mean * QUANTILES * np.diff(below))
    low, high = length.uniform or (length.constant, length.constant)
    return np.asarray(np.interp(MIDDLES, (0, 1), (low or 1, high or 1)))


def _whole(length: Length) -> Floats:
    """The same in whole tokens, at least one: as `sim.workload.lengths` draws them."""
    return np.maximum(np.rint(_shares(length)), 1.0)


def _scaled(quantiles: Floats, mean: float) -> tuple[float, ...]:
    return tuple((quantiles * mean / quantiles.mean()).tolist())


def _traced(scenario: Scenario, stream: RequestStream, most_tokens: float) -> Demand:
    """The means of the requests themselves; of sessions, of all their turns.

    Sessions in a closed loop have no rate: how long their users think decides it.
    """
    if not len(stream):
        raise DeploymentError([Problem(("workload",), "holds no request")])
    turns = stream.turns
    asked = stream.prompts if turns is None else turns.prompts
    rate_per_s = _rate(scenario.workload.arrivals) or _rate_of(stream)
    if turns is not None and rate_per_s is not None:
        rate_per_s *= len(turns.prompts) / turns.sessions
    columns = (asked.input_tokens, asked.output_tokens, asked.cached_tokens)
    prompt, answer, cached = (column.astype(np.float64) for column in columns)
    counted = _counted(prompt, answer, cached, most_tokens, rate_per_s)
    concurrency = stream.concurrency if turns is None else None
    return replace(counted, concurrency=concurrency, requests=len(prompt))


def _counted(
    prompt: Floats, answer: Floats, cached: Floats, most_tokens: float, rate_per_s: float | None
) -> Demand:
    """The means of requests one by one, those of more than `most_tokens` left out."""
    fits = prompt + answer <= most_tokens
    if not fits.any():
        says = f"no request is short enough: expected at most {most_tokens:,.0f} tokens of prompt and answer"
        raise DeploymentError([Problem(("workload",), says)])
    prompt, answer, cached = prompt[fits], answer[fits], np.minimum(cached, prompt - 1)[fits]
    new, taken = prompt - cached, float(fits.mean())
    context = _mean(answer * (prompt + answer / 2), answer)
    squares = _mean(answer * (prompt**2 + prompt * answer + answer**2 / 3), answer)
    return Demand(
        input_tokens=float(prompt.mean()),
        cached_tokens=float(cached.mean()),
        output_tokens=float(answer.mean()),
        decode_context=context,
        decode_context_sd=math.sqrt(max(0.0, squares - context**2)),
        new_quantiles=_scaled(np.quantile(new, MIDDLES), float(new.mean())),
        rate_per_s=None if rate_per_s is None else rate_per_s * taken,
        too_long=1 - taken,
    )


def _mean(total: Floats, tokens: Floats) -> float:
    return float(total.sum() / tokens.sum())


def _rate_of(stream: RequestStream) -> float | None:
    """Requests over the time of their arrivals; None where they do not arrive by the clock."""
    last_s = float(stream.arrival_s[-1]) if len(stream) else 0.0
    return len(stream) / last_s if stream.concurrency is None and last_s > 0 else None


def _rate(arrivals: Arrivals | None) -> float | None:
    """Mean arrivals per second of an open loop."""
    if arrivals is None:
        return None
    if arrivals.diurnal is not None:
        return arrivals.diurnal.mean_rate_per_s
    opened = arrivals.poisson or arrivals.gamma
    return opened.rate_per_s if opened else None


def _concurrency(arrivals: Arrivals | None) -> int | None:
    return arrivals.closed_loop.concurrency if arrivals and arrivals.closed_loop else None
