"""`--set` stands wherever a scenario is read and says the same of one mistake; `--quick` where it has a meaning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from told import Told

from sim.cli import app

QUICK = {"validate", "calibrate run"}
"""The commands that have a short form of their work."""
FILES = {"SCENARIO.yaml", "A.yaml B.yaml ...", "PLAN.yaml", "SWEEP.yaml", "S.yaml|COMMAND"}


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def all_commands() -> dict[str, Any]:
    return dict(commands(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_whatever_reads_a_scenario_takes_overrides() -> None:
    reading = {
        name: options(command)
        for name, command in all_commands().items()
        if any(p.metavar in FILES or p.name in ("scenario", "scenarios") for p in command.params)
    }
    assert {
        "run",
        "compare",
        "check",
        "explain",
        "plan",
        "sweep",
        "validate",
        "launch write",
    } <= reading.keys()
    assert [name for name, known in reading.items() if "--set" not in known] == []


def test_only_what_can_be_cut_short_has_quick() -> None:
    assert {name for name, command in all_commands().items() if "--quick" in options(command)} == QUICK


@pytest.fixture
def files(scenario: Path) -> dict[str, list[str | Path]]:
    """The arguments of every command that reads a scenario."""
    folder = scenario.parent
    (folder / "plan.yaml").write_text(
        f"base: {scenario.name}\nobjectives: {{ttft_p99_s: 2.0}}\nsearch: {{}}\n"
    )
    (folder / "sweep.yaml").write_text(f"base: {scenario.name}\ngrid: {{router: [random]}}\n")
    (folder / "bench.json").write_text("{}")
    return {
        "run": ["run", scenario],
        "compare": ["compare", scenario, scenario],
        "check": ["check", scenario],
        "explain": ["explain", scenario],
        "plan": ["plan", folder / "plan.yaml"],
        "sweep": ["sweep", folder / "sweep.yaml", "--out", folder / "out"],
        "validate": ["validate", "--bench", folder / "bench.json", "--scenario", scenario],
        "launch write": ["launch", "write", scenario],
    }


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("workload.arrivals.poisson.rate_per_s=-3", "expected a number from 1e-6 to 1e6 per second, got -3"),
        ("workloads=3", "--set workloads: unknown key; did you mean 'workload'?"),
        ("duration_s", "--set duration_s: expected key.path=value"),
        ("duration_s=[", "--set duration_s:1:2: not valid YAML"),
    ],
)
def test_one_mistake_has_one_message_everywhere(
    files: dict[str, list[str | Path]], override: str, says: str
) -> None:
    heard = {}
    for name, arguments in files.items():
        told = Told(*arguments, "--set", override)
        assert told.code == 2 and "Traceback" not in told.stderr, name
        assert says in told.stderr, (name, told.stderr)
        heard[name] = next(line for line in told.stderr.splitlines() if says in line)
    assert set(heard.values()) == {heard["run"]}


def test_an_override_of_nothing_is_refused() -> None:
    assert Told("validate", "--set", "gpu=b200").code == 2
