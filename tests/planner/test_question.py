"""Plan files: what is asked, and what is wrong with it, where."""

from pathlib import Path

import pytest
import yaml

from sim.planner.candidates import settings, shapes
from sim.planner.question import Objective, Question, load_question
from sim.planner.traffic import traffic_of
from sim.scenario.errors import DeploymentError, ScenarioError

CHAT = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {workers: 2, gpus: 8, tp: 8, max_batch_per_gpu: 16, memory_fraction: 0.9}}
workload:
  arrivals: {gamma: {rate_per_s: 8, cv: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 100}}
duration_s: 600
objectives: {ttft_p99_s: 2.0, e2e_p99_s: 30}
price: {tier: rent_3yr}
"""


def asked(folder: Path, text: str) -> Question:
    (folder / "chat.yaml").write_text(CHAT)
    (folder / "plan.yaml").write_text(text)
    return load_question(folder / "plan.yaml")


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ScenarioError) as error:
        asked(folder, text)
    return str(error.value)


def test_a_base_gives_all_but_its_deployment(tmp_path: Path) -> None:
    question = asked(
        tmp_path, "base: chat.yaml\nworkload: {arrivals: {gamma: {rate_per_s: 5}}}\nsearch: {gpu: [H200]}\n"
    )
    assert question.varied == {"gpu": ("h200_sxm",)}
    assert question.objectives == (Objective("ttft_s", 99.0, 2.0), Objective("e2e_s", 99.0, 30.0))
    built = question.scenario({"deployment": {"serve": {"gpus": 8, "tp": 1}}})
    assert built.price.tier == "rent_3yr"
    assert built.deployment.serve and built.deployment.serve.memory_fraction is None
    traffic = traffic_of(question.loaded.scenario, 0)
    assert (traffic.peak_per_s, traffic.cv) == (5, 2)


def test_a_base_gives_nothing_of_workers_that_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "day.yaml").write_text(
        CHAT + "autoscale: {pools: {serve: {max: 4}}}\nfailures: {spare_nodes: 1}\n"
    )
    question = asked(tmp_path, "base: day.yaml\nsearch: {}\n")
    for built in (question.scenario({"deployment": {"serve": {"gpus": 8}}}), question.loaded.scenario):
        assert built.autoscale is None and built.failures is None and built.fleet is None


def test_any_percentile_may_be_promised(tmp_path: Path) -> None:
    question = asked(
        tmp_path,
        "base: chat.yaml\nobjectives: {ttft_p95_s: 1, tpot_mean_s: 0.05, tpot_p99_s: 0.1}\nsearch: {}\n",
    )
    assert [one.key for one in question.objectives] == ["ttft_p95_s", "tpot_mean_s", "tpot_p99_s"]
    known = question.loaded.scenario.objectives
    assert (known.ttft_p99_s, known.tpot_p99_s, known.e2e_p99_s) == (None, 0.1, None)


def test_twelve_lines_without_a_base_will_do(tmp_path: Path) -> None:
    text = CHAT.replace("duration_s: 600\n", "").split("deployment")[0].replace("gpu: h200_sxm\n", "")
    text += (
        "workload:"
        + CHAT.split("workload:")[1].replace("duration_s: 600\n", "")
        + "search: {gpu: [b200, gb200]}\n"
    )
    assert len(text.strip().splitlines()) <= 12
    assert asked(tmp_path, text).varied["gpu"] == ("b200_sxm", "gb200_nvl72")


def test_a_gpu_may_bring_its_price(tmp_path: Path) -> None:
    text = "base: chat.yaml\nsearch: {gpu: [h200_sxm, {gpu: h20_141, price.usd_per_gpu_hour: 1.2}]}\n"
    first, second = settings(asked(tmp_path, text))
    assert first == {"gpu": "h200_sxm"} and second == {"gpu": "h20_141gb", "price.usd_per_gpu_hour": 1.2}
    assert asked(tmp_path, text).scenario(second).price.usd_per_gpu_hour == 1.2


def test_what_is_pinned_takes_the_place_of_what_is_searched(tmp_path: Path) -> None:
    text = (
        "base: chat.yaml\nsearch: {deployment.decode.gpus: [16], deployment.decode.max_batch_per_gpu: 32}\n"
    )
    question = asked(tmp_path, text)
    found = [*shapes(question, question.loaded.scenario, "decode")]
    assert found == [{"gpus": 16, "tp": 1, "ep": 16, "max_batch_per_gpu": 32}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: chat.yaml\nsearch: {gpus: [h200]}\n", "plan.yaml:2:10: search.gpus: no key of a search"),
        ("base: chat.yaml\nsearch: {gpu: [h300]}\n", "unknown gpu 'h300'"),
        ("base: chat.yaml\nsearch: {deployment.serve.workers: [2]}\n", "the plan finds the workers"),
        ("base: chat.yaml\nsearch: {kind: mixed}\n", "expected aggregated or disaggregated, got mixed"),
        ("base: chat.yaml\nsearch: {ratio: [2]}\n", "expected workers of prefill and decode in quotes"),
        ("base: chat.yaml\nsearch: {max_gpus: -1}\n", "expected a whole number above 0, got -1"),
        ("base: chat.yaml\nsearch: {exclude: h200}\n", "expected a list of sections"),
        ("base: chat.yaml\nsearch: {precision.kv_cache: []}\n", "expected at least one value"),
        ("base: chat.yaml\nobjectives: {ttft_s: 2}\nsearch: {}\n", "plan.yaml:2:14: objectives.ttft_s: unknown"),
        ("base: chat.yaml\nobjectives: {ttft_p95_s: -2}\nsearch: {}\n", "expected seconds above 0, got -2"),
        ("base: chat.yaml\nmodle: x\nsearch: {}\n", "did you mean 'model'?"),
        ("base: chat.yml\nsearch: {}\n", "did you mean 'chat.yaml'?"),
        ("base: chat.yaml\nfleet: {replicas: 4}\nsearch: {}\n", "plan.yaml:2:1: fleet: a plan chooses how many"),
        ("base: chat.yaml\nprice: {reserved: {gpus: 8, tier: res_1yr}}\nsearch: {}\n",
         "plan.yaml:2:9: price.reserved: a plan chooses how many GPUs"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    assert says in complaint(tmp_path, text)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Of the search, of the promises, of what is no part of a plan and of the scenario around them."""
    text = (
        "base: chat.yaml\nfleet: {replicas: 4}\nworkload: {arival: {}, requests: ten}\n"
        "objectives: {tftt_p99_s: 1}\nsearch: {gpus: [h200], max_gpus: -1}\n"
    )
    said = complaint(tmp_path, text)
    keys = (
        "fleet",
        "workload.arival",
        "workload.requests",
        "objectives.tftt_p99_s",
        "search.gpus",
        "search.max_gpus",
    )
    assert [said.count(f": {key}: ") for key in keys] == [1] * len(keys), said


def test_a_plan_without_a_promise_is_none(tmp_path: Path) -> None:
    text = "base: chat.yaml\nobjectives: {ttft_p99_s: null}\nsearch: {}\n"
    assert "without a promise" in complaint(tmp_path, text)


def test_a_day_has_a_peak_and_a_mean(tmp_path: Path) -> None:
    """A curve that is 3 for six hours and 1 for eighteen: mean 1.5; 4 requests/s on the mean are 8 at the peak."""
    (tmp_path / "day.csv").write_text("hour,load\n0,1\n9,3\n15,1\n")
    arrivals = "arrivals: {diurnal: {mean_rate_per_s: 4, curve: day.csv}}"
    question = asked(tmp_path, f"base: chat.yaml\nworkload: {{{arrivals}}}\nsearch: {{}}\n")
    traffic = traffic_of(question.loaded.scenario, 0)
    assert (traffic.peak_per_s, traffic.mean_per_s) == (pytest.approx(8), 4)


def test_a_trace_has_a_busiest_window(tmp_path: Path) -> None:
    """Ten minutes of one request a second, then five of three: 1,500 requests in 900 s."""
    times = [*range(600), *(600 + i / 3 for i in range(900))]
    rows = "\n".join(f"{t},100,10" for t in times)
    (tmp_path / "trace.csv").write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
    question = asked(
        tmp_path,
        "base: chat.yaml\nworkload: {trace: trace.csv, arrivals: null}\nduration_s: null\nsearch: {}\n",
    )
    traffic = traffic_of(question.loaded.scenario, 0)
    assert traffic.own_times and traffic.most == 1500
    assert (traffic.peak_per_s, traffic.mean_per_s) == (
        pytest.approx(3, rel=0.01),
        pytest.approx(1500 / 899.67, rel=0.01),
    )


def test_sessions_are_not_planned_for(tmp_path: Path) -> None:
    workload = "{trace: agentic-coding, arrivals: {poisson: {rate_per_s: 1}}}"
    question = asked(tmp_path, f"base: chat.yaml\nworkload: {workload}\nsearch: {{}}\n")
    with pytest.raises(DeploymentError, match="holds sessions"):
        traffic_of(question.loaded.scenario, 0)


def test_a_closed_loop_has_no_rate_to_plan_for(tmp_path: Path) -> None:
    question = asked(
        tmp_path, "base: chat.yaml\nworkload: {arrivals: {closed_loop: {concurrency: 9}}}\nsearch: {}\n"
    )
    with pytest.raises(DeploymentError, match="arrive by the clock"):
        traffic_of(question.loaded.scenario, 0)


def test_a_deployment_in_the_file_is_told_to_be_left_out_and_how_to_keep_it(tmp_path: Path) -> None:
    """Who copies a scenario and adds a search; not of a base, whose deployment never counts. What is told can be
    pasted."""
    question = asked(tmp_path, CHAT + "search: {}\n")
    [note] = question.left_out
    pins = "deployment.serve.gpus: [8], deployment.serve.tp: [8], deployment.serve.max_batch_per_gpu: [16], "
    pins += "deployment.serve.memory_fraction: [0.9]"
    assert (
        note
        == f"deployment: left out, as a plan looks for one; to keep its workers as they are: search: {{{pins}}}"
    )
    kept = asked(tmp_path, f"base: chat.yaml\nsearch: {{{pins}}}\n")
    assert kept.pinned["serve"]["tp"] == (8,) and not kept.left_out


def overridden(folder: Path, text: str, *overrides: str) -> Question:
    (folder / "chat.yaml").write_text(CHAT)
    (folder / "plan.yaml").write_text(text)
    return load_question(folder / "plan.yaml", overrides)


@pytest.mark.parametrize("own", ["", "objectives: {ttft_p99_s: 2.0, e2e_p99_s: 30}\n"])
def test_an_override_changes_one_promise_and_leaves_the_others(tmp_path: Path, own: str) -> None:
    text = f"base: chat.yaml\n{own}search: {{}}\n"
    question = overridden(tmp_path, text, "objectives.ttft_p99_s=1", "objectives.tpot_p90_s=0.05")
    assert {o.key: o.bound_s for o in question.objectives} == {
        "e2e_p99_s": 30,
        "ttft_p99_s": 1,
        "tpot_p90_s": 0.05,
    }
    assert question.loaded.scenario.objectives.ttft_p99_s == 1
    assert question.loaded.scenario.objectives.e2e_p99_s == 30
    [left] = overridden(tmp_path, text, "objectives.e2e_p99_s=null").objectives
    assert left.key == "ttft_p99_s"


def test_an_override_may_take_all_promises_away(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="expected `objectives`, such as"):
        overridden(tmp_path, "base: chat.yaml\nsearch: {}\n", "objectives=null")


@pytest.mark.parametrize("value", ["3", "[ttft_p99_s]", "fast"])
def test_promises_that_are_no_section_are_refused(tmp_path: Path, value: str) -> None:
    """In the file and as an override: those of the base would stand in for them, and nobody would know."""
    with pytest.raises(ScenarioError, match=r"plan\.yaml:2:13: objectives: expected a section"):
        overridden(tmp_path, f"base: chat.yaml\nobjectives: {value}\nsearch: {{}}\n")
    with pytest.raises(ScenarioError, match="--set objectives: expected a section"):
        overridden(tmp_path, "base: chat.yaml\nsearch: {}\n", f"objectives={value}")


def test_what_is_told_to_be_kept_is_yaml(tmp_path: Path) -> None:
    pool = "deployment: {serve: {gpus: 8, exchange: all_gather, moe_backend: null}}\n"
    [note] = overridden(tmp_path, f"base: chat.yaml\n{pool}search: {{}}\n").left_out
    pins = note.split("search: ")[1]
    assert yaml.safe_load(pins) == {"deployment.serve.gpus": [8], "deployment.serve.exchange": ["all_gather"]}


def test_overrides_reach_the_search_and_the_scenario(tmp_path: Path) -> None:
    question = overridden(
        tmp_path, "base: chat.yaml\nsearch: {gpu: [h200], max_gpus: 64}\n", "search.gpu=[b200, H200]",
        "search.deployment.serve.tp=8", "workload.arrivals.poisson.rate_per_s=3", "price.tier=own_neocloud",
    )  # fmt: skip
    assert question.varied["gpu"] == ("b200_sxm", "h200_sxm") and question.max_gpus == 64
    assert question.pinned == {"serve": {"tp": (8,)}}
    assert traffic_of(question.loaded.scenario, 0).peak_per_s == 3
    assert question.loaded.scenario.price.tier == "own_neocloud"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("search.gppu=h200", "--set search.gppu: no key of a search or of a scenario; did you mean 'gpu'"),
        ("workload.arival=3", "--set workload.arival: unknown key; did you mean 'arrivals'"),
        ("objectives.ttft_p99_s=-1", "--set objectives.ttft_p99_s: expected seconds above 0, got -1"),
        (
            "objectives.tftt_p99_s=1",
            "--set objectives.tftt_p99_s: unknown objective; did you mean 'ttft_p99_s'",
        ),
        ("base=other.yaml", "--set base: is named in the plan file itself"),
        ("search.gpu", "--set search.gpu: expected key.path=value"),
        ("autoscale.period_s=9", "--set autoscale"),
    ],
)
def test_a_mistake_in_an_override_is_told_with_it(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        overridden(tmp_path, "base: chat.yaml\nsearch: {}\n", override)
    assert says in str(error.value)
