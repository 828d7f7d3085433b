"""A plan with an anchor: its own error is a margin for the layout that was measured only, and the plan says so once."""

from pathlib import Path

import pytest
import yaml
from conftest import PLAN
from stub_service import stub

import sim
from sim.planner.margin import margin_of
from sim.planner.plan import plan
from sim.planner.question import load_question
from sim.scenario.anchor import AnchorError, AnchorFile, measured_on, written
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario

MEASURED = {"serve": {"gpus": 8, "tp": 1, "ep": 1}}
OTHERS = [
    {"serve": {"gpus": 8, "tp": 1, "ep": 8}},
    {"serve": {"gpus": 8, "tp": 8, "ep": 1}},
    {"serve": {"gpus": 16, "tp": 1, "ep": 1}},
    {"prefill": {"gpus": 8, "tp": 8}, "decode": {"gpus": 8, "tp": 1, "ep": 8}},
]


def scenario(deployment: object, **changes: object) -> Scenario:
    form = {
        "model": "deepseek-r1",
        "gpu": "h200_sxm",
        "deployment": deployment,
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1}},
            "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
            "requests": 5,
        },
    }
    return parse(yaml.safe_dump({**form, **changes}), "s.yaml").scenario


def anchor(folder: Path, measured: Scenario) -> str:
    form = AnchorFile(
        step_factor=1.1,
        step_constant_s=0.0,
        ttft_added_s=0.0,
        measured_on=measured_on(measured),
        points=[{}, {}],
        error=AnchorError(tpot=0.11, ttft=0.33, throughput=0.22, left_out=2),
        version="1",
    )
    file = folder / "mine.json"
    file.write_text(written(form), encoding="utf-8")
    return str(file)


def test_the_layout_that_was_measured_expects_the_error_of_its_anchor(tmp_path: Path) -> None:
    file = anchor(tmp_path, scenario(MEASURED))
    for more in ({}, {"workers": 3}, {"max_batch_per_gpu": 16}):
        here = scenario({"serve": MEASURED["serve"] | more}, anchor=file)
        assert margin_of(here).errors == {"tpot": 0.11, "ttft": 0.33, "throughput": 0.22}


@pytest.mark.parametrize("deployment", OTHERS, ids=str)
def test_another_layout_expects_what_it_would_without_the_anchor(tmp_path: Path, deployment: object) -> None:
    file = anchor(tmp_path, scenario(MEASURED))
    here = scenario(deployment, anchor=file)
    assert margin_of(here) == margin_of(scenario(deployment))
    run = sim.simulate(here).json()
    assert run["expected_error"] == sim.simulate(scenario(deployment)).json()["expected_error"]
    assert run["anchor"]["error"]["ttft"] == 0.33  # still the anchor's own
    [note] = [note for note in run["notes"] if "another deployment" in note]
    assert note.endswith("Its factors may not hold here, and its error is not the expected one")


@pytest.mark.parametrize("kinds", ["aggregated", "disaggregated"])
def test_a_plan_says_once_that_its_anchor_is_of_another_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: str
) -> None:
    stub(monkeypatch)
    text = PLAN.format(rate=20, ttft=1.0, tpot=0.05, kinds=kinds, exclude="[]")
    measured = scenario(MEASURED, model="deepseek-v3")
    (tmp_path / "plan.yaml").write_text(text.replace("b200_sxm", "").replace(", ]", "]"))
    notes = {}
    for name, ep in (("all", "[1, 4]"), ("own", "[1]")):
        pinned = [f"deployment.serve.ep={ep}", "deployment.serve.gpus=[8]"]
        sets = [f"anchor={anchor(tmp_path, measured)}", *(f"search.{key}" for key in pinned)]
        notes[name] = plan(load_question(tmp_path / "plan.yaml", sets), workers=1).json()["notes"]
    for said in notes.values():
        assert sum("anchored on mine.json: steps x 1.100" in note for note in said) == 1
    told = {name: [note for note in said if "another deployment" in note] for name, said in notes.items()}
    [note] = told["all"]
    assert "8 serve (tp 1, ep 1) there" in note
    assert f"than {1 if kinds == 'aggregated' else 2} of 2 candidates" in note
    assert len(told["own"]) == (kinds == "disaggregated")
