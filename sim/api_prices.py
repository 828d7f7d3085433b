"""Public prices of models' APIs, and what a mix of tokens costs at them through the hours of the week."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from sim import catalog

if TYPE_CHECKING:
    import pandas as pd

DayShare = Callable[[float, float], float]
"""Share of a day's requests between two hours of the day in UTC, from 0 to 24."""
MIDNIGHT_H: Final = 24.0
DAYS_OF_WEEK: Final[Mapping[str, float]] = {"Mon-Fri": 5 / 7}
"""What `hours_utc` may begin with; share of the week."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Tokens of a service, in any unit."""

    cached: float
    uncached: float
    output: float


@dataclass(frozen=True, slots=True)
class HourlyPrice:
    """USD per million tokens of a mix at some hours."""

    hours_utc: str | None
    """None: at all other hours."""
    load_share: float
    """Of the requests of a week, those of these hours."""
    usd_per_million: float


@dataclass(frozen=True, slots=True)
class PriceList:
    """What one provider asks for one release: a price, and others for some hours."""

    row: Mapping[str, Any]
    """Of `api_prices`, for all hours that `at_hours` does not name."""
    at_hours: tuple[Mapping[str, Any], ...] = ()

    def by_hour(self, mix: Mix, share: DayShare) -> list[HourlyPrice]:
        """What the mix costs at each of the list's prices, the price of most hours last."""
        told = [
            HourlyPrice(str(row["hours_utc"]), week_share(str(row["hours_utc"]), share), _blended(row, mix))
            for row in self.at_hours
        ]
        left = 1.0 - sum(one.load_share for one in told)
        return [*told, HourlyPrice(None, left, _blended(self.row, mix))]

    def mean(self, mix: Mix, share: DayShare) -> float:
        """USD per million tokens of the mix over a week; NaN where a price is not listed."""
        return sum(one.load_share * one.usd_per_million for one in self.by_hour(mix, share))


def flat(start_h: float, end_h: float) -> float:
    """The `DayShare` of a load that is always the same."""
    return (end_h - start_h) / MIDNIGHT_H


def week_share(hours_utc: str, share: DayShare) -> float:
    """Share of a week's requests at hours such as `Mon-Fri 01:00-04:00 06:00-10:00`, every day having the same load."""
    days, *spans = [word.strip() for word in hours_utc.split()]
    if days not in DAYS_OF_WEEK:
        days, spans = "", [days, *spans]
    within = sum(share(start_h, end_h) for span in spans for start_h, end_h in _spans(span))
    return DAYS_OF_WEEK.get(days, 1.0) * within


def _spans(span: str) -> Iterator[tuple[float, float]]:
    """`22:30-00:30` is two stretches of a day."""
    start_h, end_h = (int(h) + int(m) / 60 for h, _, m in (end.partition(":") for end in span.split("-")))
    if start_h < end_h:
        yield start_h, end_h
        return
    yield start_h, MIDNIGHT_H
    yield 0.0, end_h


def _blended(row: Mapping[str, Any], mix: Mix) -> float:
    miss, output = row["input_cache_miss_usd_per_million"], row["output_usd_per_million"]
    hit = row["input_cache_hit_usd_per_million"]
    hit = miss if isnan(hit) else hit  # no discount
    total = mix.cached + mix.uncached + mix.output
    return float((mix.cached * hit + mix.uncached * miss + mix.output * output) / total)


def price_lists(model: str) -> list[PriceList]:
    """The lists of every provider. A price for some hours belongs to the list of its provider that was there by then.
    Raises UnknownName."""
    rows = api_prices(model).to_dict("records")
    whole = [row for row in rows if _is_whole(row)]
    return [
        PriceList(row, tuple(o for o in rows if not _is_whole(o) and _list_of(o, whole) is row))
        for row in whole
    ]


def _is_whole(row: Mapping[str, Any]) -> bool:
    return not isinstance(row["hours_utc"], str)


def _list_of(row: Mapping[str, Any], whole: list[dict[Any, Any]]) -> Mapping[str, Any] | None:
    keys = ("model", "provider", "listed_as")
    before = [w for w in whole if all(w[k] == row[k] for k in keys) and str(w["as_of"]) <= str(row["as_of"])]
    return max(before, key=lambda w: str(w["as_of"]), default=None)


def api_prices(model: str) -> "pd.DataFrame":
    """Public API prices of a model, USD per million tokens, DeepSeek's own first.

    Columns: model, provider, listed_as, official, input_cache_hit_usd_per_million (NaN: no discount),
    input_cache_miss_usd_per_million, output_usd_per_million, as_of, source, note, hours_utc (when the price holds; NaN:
    at all hours that no other row of the list names). An alias such as deepseek-v3.1
    gives the prices of that release; where none is listed, those of every release of the same architecture.
    Raises UnknownName.
    """
    table = _api_prices()
    architecture = catalog.model(model).name
    listed = table[table["model"] == model.lower()]
    if listed.empty:
        same = [catalog.model(name).name == architecture for name in table["model"]]
        listed = table[same]
    return listed.reset_index(drop=True)


@cache
def _api_prices() -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - a third of a second that only tables need

    file = resources.files("sim.catalog").joinpath("api_prices.csv")
    with file.open(encoding="utf-8") as text:
        return pd.read_csv(text, keep_default_na=True).fillna({"note": ""})
