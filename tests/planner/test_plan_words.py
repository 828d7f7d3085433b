"""What `tokenworks plan` says in words: each number with what it is of, the terminal and the page as the JSON."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from stub_service import Ask, stub

from sim.cli.plan_tables import answer
from sim.cli.terminal import number, usd
from sim.planner.plan import plan
from sim.planner.question import Question
from sim.report.plan import page


def said(data: dict[str, Any]) -> str:
    written = StringIO()
    console = Console(width=1000, file=written)
    for part in answer(data):
        console.print(part)
    return written.getvalue()


def test_the_rate_of_a_replica_is_told_with_and_without_the_margin(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, 0.1)
    data = plan(question(), workers=1).json()
    held, usable = (number(data["best"][key]) for key in ("held_per_s", "usable_per_s"))
    says = f"A replica alone holds {held} requests/s as simulated, {usable} with the throughput margin of 10.0% kept"
    assert says in said(data)


def test_a_load_that_is_enough_and_one_that_is_not_are_told_as_in_the_json(ask: Ask) -> None:
    data = ask(rate=20)
    [first] = data["break_even"][:1]
    for enough in (True, False):
        first["load_is_enough"] = enough
        text = said(data)
        rate, holds = number(first["rate_per_s_at_least"]), number(first["holds_per_s"])
        assert (f"or at {rate} requests/s on the mean, of {holds} that these GPUs hold" in text) == enough
        assert (f"it takes {rate} requests/s on the mean, and these GPUs hold {holds}" in text) != enough
    assert "no load is enough" not in text


def test_what_is_reached_is_told_with_who_reaches_it(ask: Ask) -> None:
    data = ask(tpot=0.004)
    [out] = data["out_of_reach"]
    assert "as one replica alone at its share of the peak" in out["says"]
    assert "by the whole plan at the peak" in said(data) and "by the whole plan at the peak" in page(data)
    assert "with what is out of reach relaxed" in said(data)
    kept = said(ask())
    assert "by the whole plan" not in kept and "relaxed" not in kept


def test_what_comes_on_top_of_a_price_and_the_engine_are_told(ask: Ask) -> None:
    data = ask()
    data["best"]["price"] |= {"usd_per_gpu_hour": 2.1, "overhead_fraction": 0.05}
    text = said(data)
    assert f"5.0% on top for what is not GPUs (price.overhead_fraction): {usd(2.205)}" in text
    assert "per GPU-hour without the 5.0% on top" in text and "Engine: sglang, assumed" in text
    assert "and 5% on top for what is not GPUs. Engine: sglang (assumed)" in page(data)
    data["best"]["engine"]["assumed"] = False
    assert "assumed" not in said(data)


def test_at_most_is_told_where_it_holds(ask: Ask) -> None:
    data = ask()
    assert data["sensitivity"]
    for one in data["sensitivity"]:
        one["at_most"] = False
    assert "at most $" not in said(data)
    data["sensitivity"][0]["at_most"] = True
    assert f"at most {usd(data['sensitivity'][0]['usd_per_million'])}" in said(data)
