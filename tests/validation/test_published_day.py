"""DeepSeek's published day: how its schedule is read, and what a sample of units makes of an hour."""

from dataclasses import replace

import numpy as np
import pytest

from sim.deployment.plan import resolve
from sim.scenario.schema import Scenario
from sim.steady import steady
from sim.validation.case_file import CaseFile, PublishedDay
from sim.validation.day import PublishedHour, UnitSample, hours, lengths_of, run_unit, unit_nodes
from sim.validation.day_figures import fewest_nodes, figures, interval, served
from sim.validation.published import shipped


@pytest.fixture(scope="module")
def file() -> CaseFile:
    return shipped()["DAY"]


@pytest.fixture(scope="module")
def day(file: CaseFile) -> PublishedDay:
    assert file.head.day
    return file.head.day


def test_schedule_has_the_published_means(file: CaseFile, day: PublishedDay) -> None:
    """226.75 nodes; 608e9 and 168e9 tokens at 73.7k and 14.8k per node make 95.5 and 131.4 of them."""
    found = hours(day, file.scenario)
    assert [hour.at for hour in found[:2]] == [12, 13] and len(found) == 24
    assert np.mean([hour.nodes for hour in found]) == pytest.approx(226.75)
    nodes = unit_nodes(file.scenario)
    assert nodes == {"prefill": 4, "decode": 18}
    mean = {role: np.mean([hour.units[role] for hour in found]) * nodes[role] for role in nodes}
    assert mean["prefill"] == pytest.approx(608e9 / 86400 / 73_700, rel=1e-3)
    assert mean["decode"] == pytest.approx(168e9 / 86400 / 14_800, rel=2e-3)
    by_hour = {hour.at: hour for hour in found}
    assert by_hour[12].units == {"prefill": 29, "decode": 9}  # 278 nodes at noon
    assert by_hour[4].units == {"prefill": 8, "decode": 2}  # 68 before dawn
    assert by_hour[1].nodes == (15 * 218 + 45 * 188) / 60


def test_requests_of_the_hours_make_the_tokens_of_the_day(file: CaseFile, day: PublishedDay) -> None:
    tokens = lengths_of(file.scenario)
    requests = sum(hour.per_s for hour in hours(day, file.scenario)) * 3600
    assert requests * tokens.output == pytest.approx(168e9)
    assert requests * tokens.input == pytest.approx(608e9, rel=2e-4)
    # Keys that a generated token sees on average: the prompt and half of the answer.
    assert tokens.input + tokens.output / 2 == pytest.approx(4989, abs=1)


UNIT = UnitSample(np.array([1.0, 2.0]), np.array([40.0, 20.0]), prefill_per_s=4.0)


def hour(per_s: float, decode: float = 1, prefill: float = 1) -> PublishedHour:
    return PublishedHour(0, 22 * decode, {"prefill": prefill, "decode": decode}, per_s)


def test_what_a_unit_cannot_do_waits_for_the_next_hour() -> None:
    """Two a second at most: of three a second 3,600 wait, and are served with the half a second that follows."""
    found = served([hour(3.0), hour(0.5), hour(1.5)], UNIT)
    assert found.requests.tolist() == [7200, 5400, 5400]
    assert found.waiting.tolist() == [3600, 0, 0]
    # 1.5 a second lies halfway between the points of 40 and 20 tokens/s.
    assert found.speed.tolist() == [20, 30, 30]


def test_the_slower_pool_decides() -> None:
    slow = replace(UNIT, prefill_per_s=1.0)
    assert served([hour(2.0)], slow).requests.tolist() == [3600]


def test_fewest_nodes_are_whole_units() -> None:
    """3.1 a second where a unit keeps 30 tokens/s at 1.5: three of 18; one of 4 computes 4 prompts a second."""
    nodes = {"prefill": 4, "decode": 18}
    assert fewest_nodes(hour(3.1), UNIT, nodes, 30.0) == 3 * 18 + 4
    assert fewest_nodes(hour(4.1), UNIT, nodes, 20.0) == 3 * 18 + 2 * 4


def test_cost_and_rates_by_hand(file: CaseFile) -> None:
    """An hour of 22 nodes of 8 GPUs at USD 2, 1 request a second of 4,383 and 1,211 tokens."""
    found = figures(file.scenario, [hour(1.0)], UNIT)
    assert found["usd_per_day"] == 22 * 8 * 2
    assert found["output_tokens_per_s_per_decode_node"] == pytest.approx(1211 / 18)
    assert found["input_tokens_per_s_per_prefill_node"] == pytest.approx(4383 / 4)
    assert found["output_tokens"] == 3600 * 1211 and found["tokens_per_s_per_user"] == 40
    assert found["bound_output_tokens_per_s_per_decode_node"] == pytest.approx(2 * 1211 / 18)


def test_interval_of_two_samples() -> None:
    """Mean 2, standard deviation sqrt 2, over sqrt 2, times 12.706 (t with one degree of freedom)."""
    assert interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706), rel=1e-4)


def test_a_unit_runs_as_its_steady_state_says(file: CaseFile, day: PublishedDay) -> None:
    """Of 16 GPUs, for speed: an estimate by equations and the run agree on speed and on the most of a prefill unit."""
    pools = file.scenario.deployment
    assert pools.decode and pools.prefill
    small = {"gpus": 16, "ep": 16}
    deployment = pools.model_copy(
        update={
            "decode": pools.decode.model_copy(update=small),
            "prefill": pools.prefill.model_copy(update={"workers": 2}),
        }
    )
    scenario = file.scenario.model_copy(update={"deployment": deployment})
    unit = run_unit(scenario, day.model_copy(update={"in_flight_per_gpu": (8, 16)}), 0)
    assert unit.decode_per_s[1] > unit.decode_per_s[0] and unit.speed[1] < unit.speed[0]
    for per_s, speed in zip(unit.decode_per_s.tolist(), unit.speed.tolist(), strict=True):
        assert steady(_at(scenario, per_s)).json()["latency"]["tpot_s"]["mean"] == pytest.approx(
            1 / speed, rel=0.03
        )
    plan = resolve(scenario, "prefill").pool("prefill")
    assert plan.dp == 32


def _at(scenario: Scenario, per_s: float) -> Scenario:
    arrivals = {"poisson": {"rate_per_s": per_s}}
    data = scenario.model_dump(exclude_unset=True)
    return Scenario.model_validate({**data, "workload": {**data["workload"], "arrivals": arrivals}})
