"""The price of a GPU-hour at which the answer turns, by hand, over a service of formulas."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stub_service import Ask, estimate, stub

from sim.planner import search
from sim.planner.plan import plan
from sim.planner.question import Question
from sim.planner.screening import Part, PartJob

EIGHTS = "[{deployment.serve.gpus: 12}]"


def test_the_price_at_which_the_next_gpu_would_win_is_told(ask: Ask) -> None:
    """10 requests/s take two B200 workers of 8 GPUs, 56 dollars an hour, or four of an H200, 64 dollars: equal where
    16 GPUs of a B200 cost 64 dollars, or 32 of an H200 56."""
    answer = ask(rate=10, exclude=EIGHTS)
    assert answer["best"]["gpu"] == "b200_sxm" and answer["best"]["price"]["source"] == "a survey"
    [one] = answer["gpu_prices"]
    assert (one["gpu"], one["usd_per_hour"], one["gpus_paid"]) == ("h200_sxm", pytest.approx(64), 32)
    assert one["best_loses_above_usd_per_gpu_hour"] == pytest.approx(4.0)
    assert one["wins_below_usd_per_gpu_hour"] == pytest.approx(1.75)
    assert not one["rack_decides"]
    assert "above $4.00 per GPU-hour of b200_sxm (now $3.50)" in one["says"]
    assert "below $1.75 (now $2.00, rent_3yr as of 2026-07)" in one["says"]


def in_racks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let B200 be sold by 72."""
    stub(monkeypatch)

    def sold(job: PartJob) -> Part:
        part = estimate(job)
        if job.setting["gpu"] != "b200_sxm" or part.gpu_hour is None:
            return part
        return replace(part, unit_gpus=72, gpu_hour=replace(part.gpu_hour, unit_gpus=72, note="one quote"))

    monkeypatch.setattr(search, "estimate", sold)


def test_a_gpu_that_takes_more_than_is_allowed_has_no_price_to_win_at(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_racks(monkeypatch)
    asked = question(rate=10, exclude=EIGHTS)
    [one] = plan(Question(**{**vars(asked), "max_gpus": 64}), workers=1).json()["gpu_prices"]
    assert one["wins_below_usd_per_gpu_hour"] is None and one["price"]["note"] == "one quote"


def test_a_gpu_that_loses_only_by_what_is_bought_at_once_is_told(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 GPUs of a B200 in a rack of 72: 252 dollars, of which the used ones are 56, less than the 64."""
    in_racks(monkeypatch)
    answer = plan(question(rate=10, exclude=EIGHTS), workers=1).json()
    assert answer["best"]["gpu"] == "h200_sxm"
    [one] = answer["gpu_prices"]
    assert (one["gpu"], one["usd_per_hour"], one["gpus"], one["gpus_paid"]) == (
        "b200_sxm",
        pytest.approx(252),
        16,
        72,
    )
    assert one["wins_below_usd_per_gpu_hour"] == pytest.approx(64 / 72)
    assert one["rack_decides"] and "72 GPUs, so that 72 are paid for and 16 used" in one["says"]


def test_a_gpu_that_holds_nothing_has_no_price_to_win_at(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An H200 so slow that its mean misses the promise."""
    stub(monkeypatch)

    def slow(job: PartJob) -> Any:
        part = estimate(job)
        return replace(part, tpot_s=(0.05,) * 3) if job.setting["gpu"] == "h200_sxm" else part

    monkeypatch.setattr(search, "estimate", slow)
    answer = plan(question(rate=10, tpot=0.03, exclude=EIGHTS), workers=1).json()
    assert answer["best"]["gpu"] == "b200_sxm"
    [one] = answer["gpu_prices"]
    assert (one["gpu"], one["best_loses_above_usd_per_gpu_hour"]) == ("h200_sxm", None)
    assert one["says"] == "No plan of h200_sxm was found that holds, whatever its GPU-hour costs"


def test_the_rival_is_bisected_to_its_end_though_it_cannot_win(ask: Ask) -> None:
    """63 H200 replicas are at 0.794, below 0.8; the search leaves them once it knows the B200's price."""
    [one] = ask(rate=200, exclude=EIGHTS)["gpu_prices"]
    assert one["usd_per_hour"] == pytest.approx(63 * 8 * 2.0)


def test_with_one_gpu_there_is_no_rival(ask: Ask) -> None:
    assert ask(exclude="[{gpu: h200_sxm}]")["gpu_prices"] == []
