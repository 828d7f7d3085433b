"""What the README shows is what happens, and every scenario that ships is a good one."""

import re
from pathlib import Path

import pytest

import sim
from sim.cli import app
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCENARIO, PYTHON = (
    re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) for language in ("yaml", "python")
)


def test_the_scenario_of_the_readme_loads() -> None:
    [text] = SCENARIO
    assert parse(text).scenario.model == "deepseek-v3.2"


def test_the_scenario_of_the_readme_keeps_its_own_objectives() -> None:
    [text] = SCENARIO
    run = sim.simulate(parse(text, overrides=["duration_s=300"]).scenario).json()
    objectives = run["scenario"]["objectives"]
    assert run["latency"]["ttft_s"]["p99"] < objectives["ttft_p99_s"]
    assert run["latency"]["tpot_s"]["p99"] < objectives["tpot_p99_s"]


def test_the_mistake_of_the_readme_is_told_as_shown() -> None:
    [text] = SCENARIO
    with pytest.raises(ScenarioError) as caught:
        parse(text.replace("rate_per_s: 20", "rate_per_s: -20"), "my-service.yaml")
    assert f"```\n{caught.value}\n```" in README


def test_the_readme_lists_every_command() -> None:
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    } | {str(group.name) for group in app.registered_groups}
    assert names | {"calibrate", "dashboard"} == set(
        re.findall(r"^\| `tokenworks (\w+)", README, re.MULTILINE)
    )


SCENARIOS = [p for p in sorted((ROOT / "scenarios").glob("*.yaml")) if not p.stem.startswith("plan_")]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_that_ships_passes_the_check(path: Path) -> None:
    assert sim.load(path).deployment.pools()
