"""The Capacity page under AppTest: what it asks, and what it shows of an answer."""

import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import sim
from dashboard.data import plans
from dashboard.settings import DEFAULTS, scenario_of, value_of
from sim.planner.question import load_question

VIEW = Path(__file__).parents[2] / "dashboard" / "views" / "capacity.py"
ASKED = {"rate": 12.0, "curve": None, "input": 1000, "output": 40, "spread": 0.0, "hits": 0.0, "model": "deepseek-v3.2",
         "gpus": ["h200_sxm"], "drafts": [0], "tier": None, "ttft_s": 2.0, "tpot_s": 0.06, "percentile": 95.0,
         "most": 64}  # fmt: skip
SMALL = """
  ratio: ["1:1"]
  deployment.serve.gpus: [8]
  deployment.serve.tp: [8]
  deployment.serve.ep: [1]
  deployment.serve.max_batch_per_gpu: [64]
  deployment.prefill.gpus: [8]
  deployment.prefill.ep: [8]
  deployment.prefill.tp: [1]
  deployment.decode.gpus: [8]
  deployment.decode.ep: [8]
  deployment.decode.tp: [1]
  deployment.decode.max_batch_per_gpu: [64]
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answer to a question that takes seconds."""
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(plans.question(ASKED) + SMALL.lstrip("\n"))
    return sim.plan(file).json()


def opened() -> AppTest:
    app = AppTest.from_file(str(VIEW), default_timeout=600).run()
    assert not app.exception, app.exception[0].message
    return app


def test_what_the_page_asks_is_a_plan_file(tmp_path: Path) -> None:
    asked = {
        **ASKED,
        "hits": 0.5,
        "spread": 1.0,
        "drafts": [0, 1],
        "tier": "rent_3yr",
        "gpus": ["h200_sxm", "b200_sxm"],
    }
    (tmp_path / "plan.yaml").write_text(plans.question(asked))
    question = load_question(tmp_path / "plan.yaml")
    assert [one.key for one in question.objectives] == ["ttft_p95_s", "tpot_p95_s"]
    assert question.varied == {"gpu": ("h200_sxm", "b200_sxm"), "speculation.draft_tokens": (0, 1)}
    assert question.max_gpus == 64 and question.loaded.scenario.workload.cached_fraction == 0.5


def test_the_page_opens_with_something_to_do() -> None:
    app = opened()
    assert [button.label for button in app.button] == ["Plan"] and not app.error
    app.multiselect(key="cap_gpus").set_value([]).run()
    assert not app.exception and app.button(key="plan").disabled


def test_an_answer_is_shown_with_its_reasons(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "answer", lambda text: answer)
    app = opened()
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["USD per hour"] == f"${answer['best']['usd_per_hour']:,.2f}"
    page = " ".join(one.proto.body for one in app.get("html"))
    assert "the best" in page and all(one["name"] in page for one in answer["candidates"])


def test_a_candidate_opens_in_what_if_as_it_is(answer: Any) -> None:
    for one in answer["candidates"]:
        query = dict(part.split("=") for part in plans.what_if(one).query.split("&"))
        settings = {**DEFAULTS, **{key: value_of(key, text) for key, text in query.items()}}
        spelled = scenario_of(settings)
        for role, pool in spelled["deployment"].items():
            assert pool.items() <= {**one["deployment"][role], "ep": pool["ep"]}.items()
        assert spelled["workload"]["arrivals"] == {"poisson": {"rate_per_s": 12.0}}
        assert re.fullmatch(r"[\w=&.]+", plans.what_if(one).query)


def test_what_a_candidate_loses_in_what_if_is_said(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = {"price": {"reserved": {"gpus": 8, "usd_per_gpu_hour": 1.5}}}
    candidates = [{**one, "scenario": {**one["scenario"], **reserved}} for one in answer["candidates"]]
    monkeypatch.setattr(plans, "answer", lambda text: {**answer, "candidates": candidates})
    said = [one.value.replace("\\", "") for one in opened().caption]
    assert any("no setting for" in one and "price.reserved" in one for one in said), said


def test_what_is_out_of_reach_is_said(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "TPOT p95 of 1 ms is out of reach, the nearest candidate has 10 ms"
    missed = {"objective": "tpot_p95_s", "bound": 0.001, "reached": 0.01, "with": "any", "says": says}
    monkeypatch.setattr(plans, "answer", lambda text: {**answer, "out_of_reach": [missed]})
    assert any(says in error.value for error in opened().error)
