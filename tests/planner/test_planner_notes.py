"""What a plan and a sweep say beside their numbers: a price for several GPUs, pins that cannot be, promises."""

from pathlib import Path

import pytest

from sim.parallel import Crew
from sim.planner import plan as planning
from sim.planner import search as searching
from sim.planner.notes import heading, lost_pins, promises_left_out
from sim.planner.one_price import shared_price
from sim.planner.points import load_sweep, notes
from sim.planner.question import Question, load_question
from sim.planner.search import Found
from sim.planner.traffic import traffic_of
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import load, parse, to_yaml
from sim.scenario.other_gpu import price_of_another_gpu

PLAN = """
model: deepseek-v3
profile: analytic
workload:
  arrivals: {poisson: {rate_per_s: 12}}
  lengths: {input: {constant: 1000}, output: {constant: 40}}
objectives: {ttft_p95_s: 2.0, tpot_p99_s: 0.06}
"""
CHAT = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, tp: 8}}
workload:
  arrivals: {poisson: {rate_per_s: 1}}
  lengths: {input: {constant: 1000}, output: {constant: 100}}
duration_s: 60
"""


def asked(folder: Path, text: str, *overrides: str) -> Question:
    (folder / "plan.yaml").write_text(PLAN + text)
    return load_question(folder / "plan.yaml", overrides)


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200, b200, h20_141]}\n", "h200_sxm, b200_sxm, h20_141gb"),
        ("price: {hours: [{from_hour: 0, usd_per_gpu_hour: 2.1}]}\nsearch: {gpu: [h200, b200]}\n",
         "h200_sxm, b200_sxm"),
        ("search: {gpu: [h200, b200], price.usd_per_gpu_hour: [2, 3]}\n", "h200_sxm, b200_sxm"),
        ("price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200, b200, {gpu: h20_141, price.usd_per_gpu_hour: 1}]}\n",
         "h200_sxm, b200_sxm"),
    ],
)  # fmt: skip
def test_one_price_for_several_gpus_is_told_with_how_to_give_each_its_own(
    tmp_path: Path, text: str, of: str
) -> None:
    [note] = shared_price(asked(tmp_path, text))
    assert of in note and "{gpu: h200_sxm, price.usd_per_gpu_hour: USD}" in note
    entries = note.split("search: ")[1].replace("USD", "2.5")
    assert [*shared_price(asked(tmp_path, f"price: {{usd_per_gpu_hour: 9}}\nsearch: {entries}\n"))] == []


@pytest.mark.parametrize(
    "text",
    [
        "search: {gpu: [h200, b200]}\n",
        "price: {tier: rent_3yr}\nsearch: {gpu: [h200, b200]}\n",
        "price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200, h200_sxm]}\n",
        "price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200, {gpu: b200, price.usd_per_gpu_hour: 3.4}]}\n",
        "price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200, b200], price.tier: [rent_3yr]}\n",
    ],
)
def test_prices_of_their_own_and_tiers_need_no_note(tmp_path: Path, text: str) -> None:
    assert [*shared_price(asked(tmp_path, text))] == []


def test_a_gpu_put_in_the_place_of_the_one_that_a_price_was_given_for(tmp_path: Path) -> None:
    text = "price: {usd_per_gpu_hour: 2.1}\nsearch: {gpu: [h200]}\n"
    assert "price" in asked(tmp_path, text, "search.gpu=b200").left_out[0]
    assert not asked(tmp_path, text, "search.gpu=b200", "price.usd_per_gpu_hour=3").left_out
    assert not asked(tmp_path, text).left_out


def test_so_of_a_scenario_by_an_override_or_by_what_extends_it(tmp_path: Path) -> None:
    priced = CHAT + "price: {usd_per_gpu_hour: 2.1}\n"
    assert not [*price_of_another_gpu(parse(priced))]
    assert "$2.10" in next(price_of_another_gpu(parse(priced, overrides=["gpu=b200"])))
    assert not [*price_of_another_gpu(parse(priced, overrides=["gpu=b200", "price.usd_per_gpu_hour=3"]))]
    assert not [*price_of_another_gpu(parse(CHAT, overrides=["price.usd_per_gpu_hour=3"]))]
    (tmp_path / "chat.yaml").write_text(priced)
    (tmp_path / "other.yaml").write_text("extends: chat.yaml\ngpu: b200_sxm\n")
    assert "b200_sxm" in next(price_of_another_gpu(load(tmp_path / "other.yaml")))


@pytest.mark.parametrize(
    ("points", "overrides", "says"),
    [
        ("grid: {gpu: [h200_sxm, b200_sxm]}", (), "h200_sxm, b200_sxm"),
        ("cases: [{gpu: b200_sxm}, {gpu: h200_sxm}]", (), "b200_sxm, h200_sxm"),
        ("cases: [{gpu: b200_sxm, price.usd_per_gpu_hour: 3.4}, {gpu: h200_sxm}]", (), ""),
        ("grid: {seed: [1]}", ("gpu=b200",), "beside another GPU"),
        ("grid: {seed: [1]}", (), ""),
    ],
)
def test_so_of_a_sweep(tmp_path: Path, points: str, overrides: tuple[str, ...], says: str) -> None:
    (tmp_path / "chat.yaml").write_text(CHAT + "price: {usd_per_gpu_hour: 2.1}\n")
    points = points.replace("seed: [1]", "duration_s: [9]")
    (tmp_path / "sweep.yaml").write_text(f"base: chat.yaml\n{points}\n")
    told = [*notes(load_sweep(tmp_path / "sweep.yaml", overrides))]
    assert (says in told[0] and "price" in told[0]) if says else not told


def screened(question: Question) -> Found:
    traffic = traffic_of(question.loaded.scenario, 0)
    jobs = [*searching._part_jobs(question, traffic)]
    with Crew(1) as crew:
        return searching.screened(question, traffic, jobs, [*searching.estimates(jobs, crew)])


SMALL = "deployment.prefill.gpus: 8, deployment.prefill.tp: 1, deployment.prefill.ep: 8, deployment.decode.gpus: 8"


def test_a_pin_that_divides_no_worker_is_named_though_others_win(tmp_path: Path) -> None:
    """Without it the search is without half of its layouts."""
    serve = "deployment.serve.gpus: 8, deployment.serve.tp: 8, deployment.serve.ep: 1"
    found = screened(
        asked(tmp_path, f"search: {{gpu: [h200], {serve}, {SMALL}, deployment.decode.ep: [7]}}\n")
    )
    assert found.entries
    [note] = lost_pins(found)
    says = "deployment.decode.ep 7 divides no worker of the search (8 GPUs); so no layout is disaggregated"
    assert note == says and note in planning._notes(found)


def test_a_value_beside_others_that_can_be_is_named_alone(tmp_path: Path) -> None:
    text = f"search: {{gpu: [h200], kind: disaggregated, {SMALL}, deployment.decode.ep: [8, 7]}}\n"
    assert [*lost_pins(screened(asked(tmp_path, text)))] == [
        "deployment.decode.ep 7 divides no worker of the search (8 GPUs)"
    ]


def test_a_pool_that_pins_leave_no_worker_of_is_told(tmp_path: Path) -> None:
    """Weights of 671 GB fit no GPU alone."""
    serve = "deployment.serve.gpus: 8, deployment.serve.tp: 8, deployment.serve.ep: 1"
    found = screened(asked(tmp_path, f"search: {{gpu: [h200], {serve}, deployment.decode.gpus: 1}}\n"))
    [note] = lost_pins(found)
    assert note.startswith("deployment.decode: no worker of 1 GPUs: ") and "does not fit" in note
    assert note.endswith("; so no layout is disaggregated")


def test_where_nothing_is_left_the_pin_is_the_reason(tmp_path: Path) -> None:
    text = f"search: {{gpu: [h200], kind: disaggregated, {SMALL}, deployment.decode.ep: 7}}\n"
    with pytest.raises(DeploymentError, match=r"can be built: deployment\.decode\.ep 7 divides no worker"):
        planning.plan(asked(tmp_path, text), workers=1)


def test_promises_that_no_scenario_knows_are_named(tmp_path: Path) -> None:
    question = asked(tmp_path, "search: {gpu: [h200]}\n")
    [note] = promises_left_out(question)
    assert note.startswith("objectives.ttft_p95_s: kept by the plan, but not in the winner's scenario")
    text = heading(question) + to_yaml(question.loaded.scenario)
    assert "{ttft_p95_s: 2, tpot_p99_s: 0.06}" in text and parse(text).scenario == question.loaded.scenario
    assert parse(text).scenario.objectives.tpot_p99_s == 0.06
    known = asked(tmp_path, "search: {gpu: [h200]}\n", "objectives.ttft_p95_s=null")
    assert not [*promises_left_out(known)]


def test_null_unsets_a_key_of_the_search(tmp_path: Path) -> None:
    text = "search: {gpu: [h200], max_gpus: 8, deployment.decode.ep: [8]}\n"
    question = asked(tmp_path, text, "search.max_gpus=null", "search.deployment.decode.ep=null")
    assert question.max_gpus is None and not question.pinned
