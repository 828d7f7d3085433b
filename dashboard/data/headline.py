"""The figures that What-if puts first: what a service costs, how fast it is, what is paid for, what it keeps."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sim.report.run import Shown
from sim.report.tables import at
from sim.report.terms import TERMS
from sim.steady import SteadyState
from sim.units import MILLISECOND_S

OBJECTIVES: Final = {
    "ttft_p99_s": ("TTFT", "ttft_s"),
    "tpot_p99_s": ("TPOT", "tpot_s"),
    "e2e_p99_s": ("end to end", "e2e_s"),
}
"""Objective -> what a person reads, and the latency of a run that it bounds at p99."""


class Figure(NamedTuple):
    """One number of a headline."""

    label: str
    value: float | None
    text: str
    says: str
    """What it is."""
    less_is_better: bool = True

    def change(self, before: "Figure") -> float | None:
        """How far it has moved, as a share; None where one of the two has no value."""
        return self.value / before.value - 1 if before.value and self.value is not None else None


def digits(value: float) -> str:
    """A number for people: four significant digits, or all of its whole part."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def estimated(one: Shown) -> list[Figure]:
    """The figures of the estimate."""
    state = _state(one)
    point, sold = state.point, state.point.price.usd_per_million
    means = {"ttft_s": point.ttft_s, "tpot_s": point.tpot_s}
    return [
        *_prices(sold.blended, sold.output),
        *_speed(point.output_tokens_per_s_per_gpu, point.interactivity, point.ttft_s),
        *_deployment(state),
        _promises(one, {}, means if state.stable else None),
    ]


def simulated(one: Shown) -> list[Figure]:
    """The same figures of the simulation; load and price when full are estimates in both."""
    run = one.run.json() if one.run else {}
    tpot_s = at(run, "latency", "tpot_s", "mean")
    p99 = {latency: at(run, "latency", latency, "p99") for _, latency in OBJECTIVES.values()}
    return [
        *_prices(*(at(run, "cost", "usd_per_million", kind) for kind in ("blended", "output"))),
        *_speed(
            at(run, "throughput", "output_tokens_per_s_per_gpu"),
            1 / tpot_s if tpot_s else None,
            at(run, "latency", "ttft_s", "mean"),
        ),
        *_deployment(_state(one)),
        _promises(one, p99, None),
    ]


def bought(one: Shown) -> str | None:
    """A sentence where more GPUs are paid for than work; None where all of them do."""
    price = _state(one).point.price
    buy = price.purchase
    if not buy.stranded:
        return None
    return (
        f"{buy.bought:,} GPUs are paid for and {buy.used:,} are used: {one.scenario.gpu} at {price.gpu_hour.tier} is "
        f"sold by {buy.unit}, and the price of the tokens carries the {buy.stranded:,} idle ones."
    )


def _state(one: Shown) -> SteadyState:
    if one.state is None:
        raise ValueError(f"{one.name}: no estimate")
    return one.state


def _prices(blended: float | None, output: float | None) -> Iterator[Figure]:
    yield Figure("Blended", blended, _usd(blended, "/M"), TERMS["blended"])
    yield Figure("Output", output, _usd(output, "/M"), TERMS["price of output"])


def _speed(per_gpu: float | None, per_user: float | None, ttft_s: float | None) -> Iterator[Figure]:
    yield Figure("Per GPU", per_gpu, _with("tok/s", per_gpu), TERMS["throughput"], less_is_better=False)
    yield Figure("Per user", per_user, _with("tok/s", per_user), TERMS["interactivity"], less_is_better=False)
    yield Figure("TTFT", ttft_s, _with("s", ttft_s), f"{TERMS['TTFT']} The mean.")


def _deployment(state: SteadyState) -> Iterator[Figure]:
    price, full = state.point.price, state.curve[-1].price.usd_per_million.blended
    buy, hour = price.purchase, price.gpu_hour
    yield Figure(
        "GPUs", buy.bought, f"{buy.used:,} of {buy.bought:,}" if buy.stranded else f"{buy.used:,}",
        f"Of all workers. {buy.used:,} are used and {buy.bought:,} paid for: {hour.tier} is sold by {buy.unit}.",
    )  # fmt: skip
    yield Figure(
        "Per hour", price.usd_per_hour, _usd(price.usd_per_hour),
        f"{buy.bought:,} GPUs paid for, ${hour.usd:.4g} per GPU-hour ({hour.tier}), {price.overhead_fraction:.0%} "
        "overhead on top.",
    )  # fmt: skip
    yield Figure(
        "When full", full, _usd(full, "/M"),
        f"Blended price where all is in use, at {digits(state.capacity_requests_per_s)} requests/s. An estimate.",
    )  # fmt: skip
    yield Figure(
        "Load",
        state.load,
        f"{state.load:.0%}" if state.load < 10 else f"{digits(state.load)}x",
        TERMS["load"],
    )


def _promises(one: Shown, p99: Mapping[str, float | None], means: Mapping[str, float] | None) -> Figure:
    """How many objectives are kept; by means alone (an estimate) only that one is missed can be known."""
    promised = {
        key: bound for key in OBJECTIVES if (bound := getattr(one.scenario.objectives, key)) is not None
    }
    bounds = ", ".join(
        f"{OBJECTIVES[key][0]} p99 within {_seconds(bound)}" for key, bound in promised.items()
    )
    says = f"{bounds}. " if bounds else ""
    if not promised:
        return Figure("Objectives", None, "none", "The scenario promises nothing.")
    if not p99:
        missed = means is None or any(
            means.get(OBJECTIVES[key][1], 0.0) > bound for key, bound in promised.items()
        )
        says += (
            "Only a simulation has p99; the estimate knows them missed where already its means exceed them."
        )
        return Figure("Objectives", None, "missed" if missed else "simulate", says)
    kept = sum(
        (found := p99[OBJECTIVES[key][1]]) is not None and found <= bound for key, bound in promised.items()
    )
    found_p99 = ", ".join(f"{label} {_seconds(p99[latency])}" for label, latency in _named(promised))
    return Figure("Objectives", None, f"{kept} of {len(promised)} kept", f"{says}Found: {found_p99}.", False)


def _named(promised: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [OBJECTIVES[key] for key in promised]


def _usd(value: float | None, per: str = "") -> str:
    return "-" if value is None else f"${f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'}{per}"


def _with(unit: str, value: float | None) -> str:
    return "-" if value is None else f"{f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'} {unit}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value / MILLISECOND_S:.3g} ms"
