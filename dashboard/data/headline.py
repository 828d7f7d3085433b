"""The figures that What-if puts first: what a service costs, how fast it is, what is paid for, what it keeps."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sim.report.run import Shown
from sim.report.tables import at
from sim.report.terms import TERMS
from sim.result.objectives import OBJECTIVES, judged
from sim.steady import SteadyState
from sim.units import MILLISECOND_S


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


NOTHING_PROMISED: Final = Figure("Objectives", None, "none", "The scenario promises nothing.")


def digits(value: float) -> str:
    """A number for people: four significant digits, or all of its whole part."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def estimated(one: Shown) -> list[Figure]:
    """The figures of the estimate."""
    state = _state(one)
    point, sold = state.point, state.point.price.usd_per_million
    means = {"ttft_s": point.ttft_s} | ({"tpot_s": point.tpot_s} if state.demand.output_tokens > 1 else {})
    return [
        *_prices(sold.blended, sold.output),
        *_speed(point.output_tokens_per_s_per_gpu, point.interactivity, point.ttft_s),
        *_deployment(state),
        _expected(one, means if state.stable else None),
    ]


def simulated(one: Shown) -> list[Figure]:
    """The same figures of the simulation; load and price when full are estimates in both."""
    run = one.run.json() if one.run else {}
    tpot_s = at(run, "latency", "tpot_s", "mean")
    return [
        *_prices(*(at(run, "cost", "usd_per_million", kind) for kind in ("blended", "output"))),
        *_speed(
            at(run, "throughput", "output_tokens_per_s_per_gpu"),
            1 / tpot_s if tpot_s else None,
            at(run, "latency", "ttft_s", "mean"),
        ),
        *_deployment(_state(one)),
        _kept(one, run),
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


def _expected(one: Shown, means: Mapping[str, float] | None) -> Figure:
    """Which objectives may be kept; by means alone (None: overloaded) only that one is missed can be known."""
    bounds = _bounds(one)
    if not bounds:
        return NOTHING_PROMISED
    missed = means is None or any(
        means.get(OBJECTIVES[key][1], 0.0) > bound_s for key, bound_s in bounds.items()
    )
    says = "Only a simulation has p99; the estimate knows them missed where already its means exceed them."
    return Figure("Objectives", None, "missed" if missed else "simulate", f"{_told(bounds)}. {says}")


def _kept(one: Shown, run: Mapping[str, Any]) -> Figure:
    """How many objectives a run kept."""
    bounds = _bounds(one)
    if not bounds:
        return NOTHING_PROMISED
    found = [*judged(run)]
    p99 = ", ".join(
        f"{objective.label} {objective.why or _seconds(objective.found_s)}" for objective in found
    )
    text = f"{sum(objective.kept for objective in found)} of {len(found)} kept"
    return Figure("Objectives", None, text, f"{_told(bounds)}. Found: {p99}.", less_is_better=False)


def _bounds(one: Shown) -> dict[str, float]:
    """The bound in seconds of each objective that the scenario has."""
    bounds = {key: getattr(one.scenario.objectives, key) for key in OBJECTIVES}
    return {key: bound_s for key, bound_s in bounds.items() if bound_s is not None}


def _told(bounds: Mapping[str, float]) -> str:
    return ", ".join(
        f"{OBJECTIVES[key][0]} p99 within {_seconds(bound_s)}" for key, bound_s in bounds.items()
    )


def _usd(value: float | None, per: str = "") -> str:
    return "-" if value is None else f"${f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'}{per}"


def _with(unit: str, value: float | None) -> str:
    return "-" if value is None else f"{f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'} {unit}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value / MILLISECOND_S:.3g} ms"
