"""What a workload asks for on average."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Arrivals, Length, Scenario
from sim.workload import RequestStream, requests

Floats = NDArray[np.float64]

QUANTILES = 1200
"""Prompt lengths that stand for all where the longest prompt of a step decides what it costs."""
MIDDLES = (np.arange(QUANTILES) + 0.5) / QUANTILES


@dataclass(frozen=True, slots=True)
class Demand:
    """Means of a workload. Contexts are means over TOKENS, so that long requests weigh as much as they work."""

    input_tokens: float
    """Prompt tokens of a request."""
    cached_tokens: float
    """Prompt tokens of a request that hit the prefix cache."""
    output_tokens: float
    """Generated tokens of a request."""
    prefill_context: float
    """KV tokens that a computed prompt token attends to: the cached prefix and half of the computed prompt."""
    prefill_context_alone: float
    """The same without the cached prefix."""
    decode_context: float
    """KV tokens that a generated token attends to: the prompt and half of the answer."""
    new_quantiles: tuple[float, ...]
    """Computed prompt tokens at the middle of QUANTILES equal shares of the requests, scaled to their mean."""
    rate_per_s: float | None = None
    """Arrivals per second; None in a closed loop and in an offline batch."""
    concurrency: int | None = None
    """Requests in flight of a closed loop."""
    answers_alike: bool = False
    """All answers have the same length: those that begin together end together."""

    @property
    def new_tokens(self) -> float:
        """Prompt tokens of a request that are computed."""
        return self.input_tokens - self.cached_tokens

    def short(self, up_to: float) -> "tuple[float, Demand]":
        """The share of the requests whose prompts have at most `up_to` tokens, and what such prompts ask for; all where
        there is none."""
        new, more = np.array(self.new_quantiles), self.cached_tokens / self.new_tokens
        fits = new * (1 + more) <= up_to
        if fits.all() or not fits.any():
            return float(fits.all()), self
        new = new[fits]
        alone = _mean(new * (new + 1) / 2, new)
        return float(fits.mean()), replace(
            self,
            input_tokens=float(new.mean()) * (1 + more),
            cached_tokens=float(new.mean()) * more,
            prefill_context=_mean(new**2 * more, new) + alone,
            prefill_context_alone=alone,
            new_quantiles=tuple(new.tolist()),
        )


def demand_of(scenario: Scenario, base_folder: Path | None = None) -> Demand:
    """The scenario's workload as means: from its distributions, or counted over its trace.

    With I and O the lengths of prompt and answer (independent of each other) and f the cached fraction,

        prefill_context       = f E[I^2] / E[I] + prefill_context_alone
        prefill_context_alone = ((1 - f) E[I^2] / E[I] + 1) / 2
        decode_context        = E[I] + E[O^2] / (2 E[O])

    At least one token of a prompt is computed, as in the simulation; f is that much below 1.

    Prefix hits that a trace's hashes would find are not counted: only the simulation knows them.
    Raises DeploymentError or ScenarioError where a file of the workload is missing or broken.
    """
    workload = scenario.workload
    lengths = workload.lengths
    if lengths is None or lengths.input.histogram or lengths.output.histogram:
        return _counted(scenario, requests(scenario, 0, base_folder))
    prompt, prompt_squares = _moments(lengths.input)
    answer, answer_squares = _moments(lengths.output)
    fraction = min(workload.cached_fraction or 0.0, 1 - 1 / prompt)
    long = prompt_squares / prompt
    alone = ((1 - fraction) * long + 1) / 2
    return Demand(
        input_tokens=prompt,
        cached_tokens=fraction * prompt,
        output_tokens=answer,
        prefill_context=fraction * long + alone,
        prefill_context_alone=alone,
        decode_context=prompt + answer_squares / (2 * answer),
        new_quantiles=_scaled(_quantiles(lengths.input), (1 - fraction) * prompt),
        rate_per_s=_rate(workload.arrivals),
        concurrency=_concurrency(workload.arrivals),
        answers_alike=lengths.output.constant is not None,
    )


def _moments(length: Length) -> tuple[float, float]:
    """(E[X], E[X^2]) of a distribution with parameters; for the lognormal E[X^2] = mean^2 (1 + cv^2)."""
    if length.constant is not None:
        return float(length.constant), float(length.constant) ** 2
    if length.uniform is not None:
        low, high = length.uniform
        mean = (low + high) / 2
        return mean, mean**2 + ((high - low + 1) ** 2 - 1) / 12
    assert length.lognormal is not None
    mean = length.lognormal.mean
    return mean, mean**2 * (1 + length.lognormal.cv**2)


def _quantiles(length: Length) -> Floats:
    """Lengths at MIDDLES of a distribution with parameters; the lognormal's are those of `sim.workload.lengths`."""
    if length.lognormal is not None:
        variance = math.log1p(length.lognormal.cv**2)
        mu = math.log(length.lognormal.mean) - variance / 2
        return np.asarray(np.exp(mu + math.sqrt(variance) * ndtri(MIDDLES)))
    low, high = length.uniform or (length.constant, length.constant)
    return np.asarray(np.interp(MIDDLES, (0, 1), (low or 1, high or 1)))


def _scaled(quantiles: Floats, mean: float) -> tuple[float, ...]:
    return tuple((quantiles * mean / quantiles.mean()).tolist())


def _counted(scenario: Scenario, stream: RequestStream) -> Demand:
    """The means of the requests themselves; of sessions, of all their turns.

    Sessions in a closed loop have no rate: how long their users think decides it.
    """
    if not len(stream):
        raise DeploymentError([Problem(("workload",), "holds no request")])
    turns = stream.turns
    asked = stream.prompts if turns is None else turns.prompts
    prompt, answer, cached = (
        column.astype(np.float64) for column in (asked.input_tokens, asked.output_tokens, asked.cached_tokens)
    )
    rate_per_s = _rate(scenario.workload.arrivals) or _rate_of(stream)
    if turns is not None and rate_per_s is not None:
        rate_per_s *= len(turns.prompts) / turns.sessions
    cached = np.minimum(cached, prompt - 1)
    new = prompt - cached
    alone = _mean(new * (new + 1) / 2, new)
    return Demand(
        input_tokens=float(prompt.mean()),
        cached_tokens=float(cached.mean()),
        output_tokens=float(answer.mean()),
        prefill_context=_mean(new * cached, new) + alone,
        prefill_context_alone=alone,
        decode_context=_mean(answer * (prompt + answer / 2), answer),
        new_quantiles=_scaled(np.quantile(new, MIDDLES), float(new.mean())),
        rate_per_s=rate_per_s,
        concurrency=stream.concurrency if turns is None else None,
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
