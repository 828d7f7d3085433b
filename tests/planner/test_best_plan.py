"""Plans over a service of formulas: sizes and prices by hand, and what must hold whatever is asked."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import yaml
from stub_service import USD, Ask, estimate, measured, stub

from sim.planner import full, search
from sim.planner.holding import Target, hold
from sim.planner.plan import plan
from sim.planner.question import Question
from sim.planner.screening import Part, PartJob
from sim.planner.sizing import replicas_for, sized
from sim.planner.traffic import traffic_of
from sim.scenario.errors import DeploymentError


def test_the_plan_is_what_one_computes_by_hand(ask: Ask) -> None:
    """8 GPUs of an H200 are full at 4 requests/s. TTFT p99 0.2 / (1 - u) <= 1 s holds to u = 0.8, TPOT p99 20 ms x
    (1 + u) <= 50 ms always. Rates are tried in steps of 1.1 x 4 / 64 = 0.06875: the highest below 3.2 is 46 steps,
    3.1625. 20 requests/s take ceil(20 / 3.1625) = 7 replicas, 56 GPUs at 2 dollars: 112. A B200 is twice as fast and
    1.75 times as dear: 4 replicas, 32 GPUs, 112 dollars, too, on fewer GPUs."""
    best = ask()["best"]
    assert best["meets_objectives"] and best["gpu"] == "b200_sxm"
    assert (best["replicas"], best["gpus"], best["gpus_paid"], best["stranded"]) == (4, 32, 32, 0)
    assert best["usd_per_hour"] == pytest.approx(112)
    assert best["held_per_s"] == pytest.approx(2 * 3.1625)
    # 20 requests/s x 1,200 tokens x 3,600 s = 86.4 million tokens an hour
    assert best["usd_per_million"]["blended"] == pytest.approx(112 / 86.4)
    h200 = ask(exclude="[{gpu: b200_sxm}]")["best"]
    assert (h200["replicas"], h200["gpus"], h200["usd_per_hour"]) == (7, 56, pytest.approx(112))


def test_a_promise_in_milliseconds_is_asked_about(ask: Ask) -> None:
    assert ask()["notes"] == []
    assert [note.split(":")[0] for note in ask(ttft=2000, tpot=40)["notes"]] == [
        "objectives.ttft_p99_s", "objectives.tpot_p99_s",
    ]  # fmt: skip


def test_whole_nodes_are_paid_for(ask: Ask) -> None:
    """12 GPUs of an H200 hold 1.5 x 3.1625 = 4.74: 3 replicas for 14 requests/s are 36 GPUs in 5 nodes of 8."""
    only = "[{deployment.serve.gpus: 8}, {gpu: b200_sxm}]"
    best = ask(rate=14, exclude=only)["best"]
    assert (best["replicas"], best["gpus"], best["gpus_paid"], best["stranded"]) == (3, 36, 40, 4)
    assert best["usd_per_hour"] == pytest.approx(80)


def test_a_rack_is_bought_whole(question: Callable[..., Question]) -> None:
    """Ten workers of 8 GPUs in racks of 72: two racks."""
    one = _entries(question())[0].screened
    rack = Part(**{**vars(one.any_part), "unit_gpus": 72})
    size = sized(question(), search.Screened(one.candidate, {"serve": rack}), 10)
    assert (size.paid, size.stranded) == (144, 144 - 10 * one.candidate.gpus)


def test_storage_is_paid_for_by_every_worker_that_computes_prompts(question: Callable[..., Question]) -> None:
    """Half a dollar an hour beside each of three workers, and of one to spare."""
    one = _entries(question())[0].screened
    stored = search.Screened(
        one.candidate, {"serve": Part(**{**vars(one.any_part), "storage_usd_per_hour": 0.5})}
    )
    bare, with_storage = (sized(question(), s, 3, spare=1).usd_per_hour for s in (one, stored))
    assert with_storage - bare == pytest.approx(2.0)


def test_a_loser_may_need_more_gpus_than_a_scenario_can_have(ask: Ask) -> None:
    """TTFT p99 is 0.2 s without load: a promise of 0.2033 s leaves 1.6% of the capacity, one step of 64."""
    answer = ask(rate=2000, ttft=0.204)
    assert answer["candidates"] and all(one["scenario"] for one in answer["candidates"])


def test_a_whole_quotient_takes_no_replica_more() -> None:
    assert [replicas_for(rate, 0.1) for rate in (0.3, 0.30001, 0.05)] == [3, 4, 1]


def test_a_worker_to_spare_in_each_pool(ask: Ask) -> None:
    """Either kind of worker may fail: a prefill and a decode worker of 8 GPUs more."""
    answer = ask(kinds="disaggregated")
    best, spare = answer["best"], answer["n_plus_1"]
    assert spare["spare"] == {"prefill": 1, "decode": 1}
    assert spare["gpus"] == best["gpus"] + 16
    assert spare["usd_per_hour_more"] == pytest.approx(16 * USD[best["gpu"]])
    for role, pool in spare["deployment"].items():
        assert pool["workers"] == best["deployment"][role]["workers"] + 1


def test_the_margin_is_a_slower_service(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """25% slower in everything: TTFT p99 must stay below 0.8 s (u <= 0.75) at 25 requests/s, not 20. In steps of
    0.1375 a B200 worker holds 43 of them, 5.9125 (6.0 is the limit): 5 replicas instead of 4."""
    stub(monkeypatch, errors=0.25)
    answer = plan(question(exclude="[{gpu: h200_sxm}, {deployment.serve.gpus: 12}]"), workers=1).json()
    assert answer["best"]["replicas"] == 5 and answer["best"]["held_per_s"] == pytest.approx(43 * 0.1375)
    assert answer["without_margin"]["replicas"] == 4


LADDER = (1, 3, 5, 11, 20, 40, 80, 160)


def test_more_traffic_never_takes_fewer_gpus_nor_less_money(ask: Ask) -> None:
    for exclude in ("[{gpu: h200_sxm}]", "[{gpu: b200_sxm}]"):
        best = [ask(rate=rate, exclude=exclude)["best"] for rate in LADDER]
        assert all(a["gpus"] <= b["gpus"] for a, b in pairwise(best))
    best = [ask(rate=rate)["best"] for rate in LADDER]
    assert all(a["usd_per_hour"] <= b["usd_per_hour"] for a, b in pairwise(best))


@pytest.mark.parametrize("words", [{"ttft": t} for t in (0.3, 0.5)] + [{"tpot": t} for t in (0.025, 0.03)])
def test_a_looser_objective_never_costs_more(ask: Ask, words: dict[str, float]) -> None:
    [(key, bound)] = words.items()
    prices = [ask(**{key: bound * factor})["best"]["usd_per_hour"] for factor in (1, 1.05, 1.2, 1.5, 2, 4)]
    assert prices == sorted(prices, reverse=True)


def test_without_the_winner_it_is_dearer_or_larger(ask: Ask) -> None:
    exclude: list[dict[str, Any]] = []
    before: tuple[float, int] = (0.0, 0)
    for _ in range(3):
        best = ask(
            kinds="aggregated, disaggregated",
            rate=33,
            exclude=yaml.safe_dump(exclude, default_flow_style=True),
        )["best"]
        assert (best["usd_per_hour"], best["gpus"]) >= before
        before = best["usd_per_hour"], best["gpus"]
        exclude.append(best["choices"])


def _entries(asked: Question) -> list[search.Entry]:
    traffic = traffic_of(asked.loaded.scenario, 0)
    jobs = list(search._part_jobs(asked, traffic))
    return search.screened(asked, traffic, jobs, [estimate(job) for job in jobs]).entries


@pytest.mark.parametrize("rate", LADDER)
def test_trying_everything_finds_the_same_winner(
    question: Callable[..., Question],
    ask: Ask,
    rate: float,
) -> None:
    """Every candidate bisected to the end, none left out by a bound or a lesson."""
    kinds = "aggregated, disaggregated"
    asked = question(rate=rate, kinds=kinds)
    traffic, outcomes = traffic_of(asked.loaded.scenario, 0), []
    for entry in _entries(asked):
        target = Target(asked.objectives, at_most=float("inf"), to_win=0.0)
        held = hold(search.HoldJob(asked, traffic, entry.screened, (target,), 0)).brackets[0].low
        if held:
            size = sized(asked, entry.screened, replicas_for(rate, held))
            outcomes.append((search.rank(entry.screened, size, held), entry.screened.candidate.name))
    assert ask(rate=rate, kinds=kinds)["best"]["name"] == min(outcomes)[1]


def test_a_gpu_of_which_nothing_can_be_built_is_named(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what all its workers lack, such as a price; not with what the first one lacks beside that."""
    stub(monkeypatch)

    def unpriced(job: PartJob) -> Part:
        if job.setting["gpu"] != "b200_sxm":
            return estimate(job)
        gpus = job.shape["gpus"]
        return Part(why_not=f"no price of it{'; does not fit' if gpus == 8 else ''}")

    monkeypatch.setattr(search, "estimate", unpriced)
    assert plan(question(), workers=1).json()["notes"] == [
        "no worker can be built of b200_sxm: no price of it"
    ]
    with pytest.raises(DeploymentError, match=r"no deployment can be built: b200_sxm: no price of it$"):
        plan(question(exclude="[{gpu: h200_sxm}]"), workers=1)


def test_a_loser_is_told_why(ask: Ask) -> None:
    answer = ask(kinds="aggregated, disaggregated")
    losers = [one for one in answer["candidates"] if one["name"] != answer["best"]["name"]]
    assert losers and all(one["why_not"] for one in losers)
    assert all(one["usd_per_hour"] >= answer["best"]["usd_per_hour"] for one in losers)


def test_a_plan_that_misses_at_full_traffic_is_repaired(
    question: Callable[..., Question],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All together are slower here than each alone: as if 26 requests/s came, not 20. Four B200 workers of 8 GPUs have
    0.2 / (1 - 26 / 32) = 1.07 s then, and a fifth is needed: 0.57 s."""
    stub(monkeypatch)

    def slower(job: full.FullJob) -> tuple[Any, float]:
        return measured(job.screened, 26.0, job.replicas), 1.0

    monkeypatch.setattr(full, "at_full_traffic", slower)
    best = plan(question(exclude="[{gpu: h200_sxm}, {deployment.serve.gpus: 12}]"), workers=1).json()["best"]
    assert (best["replicas"], best["repaired"], best["meets_objectives"]) == (5, 1, True)


def test_the_curve_of_prices_only_falls(ask: Ask) -> None:
    frontier = [p for p in ask()["frontier"] if not p["simulated"]]
    speeds, prices = ([p[k] for p in frontier] for k in ("tokens_per_s_per_user", "usd_per_million"))
    assert speeds == sorted(speeds, reverse=True) and prices == sorted(prices, reverse=True)


def test_a_dearer_gpu_may_change_the_winner(ask: Ask) -> None:
    """Both cost 112 dollars an hour; 20% more for the B200 makes it the H200."""
    moved = {(s["input"], s["change"]): s for s in ask()["sensitivity"]}
    assert moved["price of b200_sxm", "+20%"]["best_changes"]
    assert moved["price of b200_sxm", "+20%"]["usd_per_hour"] == pytest.approx(112)
    assert moved["price of b200_sxm", "-20%"]["usd_per_hour"] == pytest.approx(0.8 * 112)
    # 24 requests/s: 4 replicas of 6.325 still do, so that the same dollars buy more tokens
    assert moved["load", "+20%"]["usd_per_million"] == pytest.approx(112 / (86.4 * 1.2))


def test_owning_is_compared_with_what_an_api_asks_at_every_hour(ask: Ask) -> None:
    """DeepSeek asked for V3 0.27 and 1.10 dollars, and half of it from 16:30 to 00:30 UTC, a third of an even day: with
    five tokens read to one written 0.408333, times 5/6."""
    maker = next(one for one in ask()["break_even"] if one["official"])
    whole = (5 * 0.27 + 1.10) / 6
    assert [(one["hours_utc"], one["load_share"]) for one in maker["by_hour"]] == [
        ("16:30-00:30", pytest.approx(1 / 3)),
        (None, pytest.approx(2 / 3)),
    ]
    assert [one["usd_per_million"] for one in maker["by_hour"]] == pytest.approx([whole / 2, whole])
    assert maker["usd_per_million"] == pytest.approx(whole * 5 / 6)


def test_what_relieves_a_worker_that_does_both_is_no_ratio(ask: Ask) -> None:
    """Only pools apart have so many prefill workers to a decode worker."""
    together, apart = (ask(kinds=kind)["best"]["relief"] for kind in ("aggregated", "disaggregated"))
    assert together and "to a" not in together
    assert apart and "to a" in apart
