"""Public API prices by the hour of the day, and what a day's load pays on average."""

import pytest

import sim
from sim.api_prices import Mix, flat, price_lists, week_share
from sim.planner.traffic import day_share

ANSWERS = Mix(0, 0, 1)
OFFICIAL = "DeepSeek"


def made_by_deepseek(model: str):  # type: ignore[no-untyped-def]
    return [one for one in price_lists(model) if one.row["provider"] == OFFICIAL]


def daily(**price: float):  # type: ignore[no-untyped-def]
    return sim.load(
        {
            "model": "deepseek-v3", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "tp": 8}},
            "workload": {"arrivals": {"diurnal": {"mean_rate_per_s": 1.0, "curve": "deepseek-24h"}},
                         "lengths": {"input": {"constant": 1}, "output": {"constant": 1}}},
            "duration_s": 60, "price": price,
        }
    )  # fmt: skip


def test_an_even_load_pays_v4s_peak_price_five_hours_of_twenty_four() -> None:
    """Seven hours of 24 on five days of seven: 5/24 of the week at twice the price."""
    [v4] = made_by_deepseek("deepseek-v4-pro-0813")
    peak, other = v4.by_hour(ANSWERS, flat)
    assert (peak.usd_per_million, other.usd_per_million) == (3.96, 1.98)
    assert peak.load_share == pytest.approx(5 / 24)
    assert v4.mean(ANSWERS, flat) == pytest.approx(1.98 * (1 + 5 / 24))


def test_a_day_in_china_is_busy_at_peak() -> None:
    """UTC 01:00-04:00 and 06:00-10:00 are 9 to 12 and 14 to 18 in UTC+8, the clock of DeepSeek's curve, whose loads add
    up to 24; five days of seven."""
    busy = 1.2575 + 1.3017 + 1.2771 + 1.3017 + 1.3213 + 1.3017 + 1.1887
    [v4] = made_by_deepseek("deepseek-v4-pro-0813")
    share = day_share(daily())
    assert v4.by_hour(ANSWERS, share)[0].load_share == pytest.approx(busy / 24 * 5 / 7, rel=1e-4)
    at_home = day_share(daily(utc_offset_h=0))  # the curve's hours 1 to 4 and 6 to 10
    quiet = 0.7663 + 0.5600 + 0.3389 + 0.3389 + 0.5845 + 0.9873 + 1.2575
    assert v4.by_hour(ANSWERS, at_home)[0].load_share == pytest.approx(quiet / 24 * 5 / 7, rel=1e-4)


def test_a_price_may_hold_over_midnight() -> None:
    """V3 until September 2025: half the price from 16:30 to 00:30, a third of the day."""
    [v3] = made_by_deepseek("deepseek-v3")
    assert week_share("16:30-00:30", flat) == pytest.approx(1 / 3)
    assert v3.mean(ANSWERS, flat) == pytest.approx(1.10 * 5 / 6)


def test_a_list_without_hours_is_as_it_stands() -> None:
    for one in price_lists("deepseek-v3.2"):
        assert not one.at_hours
    [v32] = made_by_deepseek("deepseek-v3.2")
    assert v32.mean(Mix(1, 1, 2), day_share(daily())) == pytest.approx((0.028 + 0.28 + 2 * 0.42) / 4)


def test_newer_hours_belong_to_the_list_of_their_day() -> None:
    """Of V4 before it had hours none are told."""
    assert [len(one.at_hours) for one in made_by_deepseek("deepseek-v4-pro")] == [0, 0]
