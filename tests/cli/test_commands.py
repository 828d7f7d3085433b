"""The command from outside: exit codes, and what goes to stdout and what to stderr."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from told import GOOD, Told


def test_check_says_what_fits(scenario: Path) -> None:
    told = Told("check", scenario)
    assert told.code == 0
    assert "ok, 24 GPUs" in told.stdout
    assert told.stderr == ""
    told = Told("check", scenario, "--json")
    assert told.json["ok"] is True
    assert told.json["gpus"] == 24
    assert told.json["pools"]["decode"]["dp"] == 16
    assert "ok, 24 GPUs" in told.stderr
    assert len(told.stdout.splitlines()) == 1
    assert Told("check", scenario, "--json", "--quiet").stderr == ""


def test_check_lists_problems_as_json_too(scenario: Path) -> None:
    scenario.write_text(GOOD.replace("gpu:", "gpuu:"))
    told = Told("check", scenario, "--json")
    assert told.code == 2
    assert told.json == {
        "ok": False,
        "problems": [
            {
                "file": str(scenario),
                "line": 2,
                "column": 1,
                "key": "gpuu",
                "message": "unknown key; did you mean 'gpu'?",
            }
        ],
    }


def test_explain_shows_where_a_step_goes(scenario: Path) -> None:
    told = Told("explain", scenario, "--phase", "decode", "--batch", "8", "--context", "4096", "--json")
    assert told.code == 0
    step = told.json
    assert sum(operation["share"] for operation in step["operations"]) == pytest.approx(1)
    # The shared expert hides beside the routed ones.
    one_after_another_s = sum(operation["seconds"] for operation in step["operations"])
    assert one_after_another_s == pytest.approx(step["step_s"] + step["hidden_s"])
    assert step["hidden_s"] > 0
    assert "decode step" in told.stderr
    assert "decode step" in Told("explain", scenario).stdout
    assert "prefill step" in Told("explain", scenario, "--phase", "prefill").stdout


def test_explain_prices_what_does_not_fit_and_says_so_on_stderr(scenario: Path) -> None:
    told = Told("explain", scenario, "--set", "gpu=h100_sxm", "--set", "deployment.prefill.gpus=8", "--json")
    assert told.code == 0
    assert told.json["step_s"] > 0
    assert "priced all the same, but cannot run" in told.stderr
    assert "GB missing" in told.stderr
    assert Told("explain", scenario, "--set", "deployment.decode.tp=3").code == 2


def test_explain_refuses_a_context_beyond_the_model(scenario: Path) -> None:
    told = Told("explain", scenario, "--context", "163841")
    assert told.code == 2
    assert told.stderr.startswith("--context: 163,841 tokens; ") and "163,840" in told.stderr


def test_out_holds_the_whole_file_and_leaves_no_other_trace(scenario: Path) -> None:
    out = scenario.parent / "deep" / "out"
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("kept")
    for _ in range(2):
        assert Told("check", scenario, "--out", out).code == 0
    assert sorted(file.name for file in out.iterdir()) == ["check.json", "mine.txt"]
    assert json.loads((out / "check.json").read_text())["ok"] is True
    assert [file.name for file in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"numpy", "pandas", "pydantic", "simpy", "scipy", "pyarrow"}),
        (["check", "{}"], {"pandas", "simpy", "pyarrow"}),
    ],
)
def test_light_commands_import_nothing_heavy(
    arguments: list[str], unwanted: set[str], scenario: Path
) -> None:
    code = (
        "import sys\nfrom sim.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    print('\\nloaded', *sys.modules, sep='\\n')\n"
    )
    filled = [argument.format(scenario) for argument in arguments]
    # Commands of extras are left out: what they import is theirs to keep light.
    hidden = "import importlib.metadata as m; m.entry_points = lambda **k: ()\n"
    ran = subprocess.run(
        [sys.executable, "-c", hidden + code, *filled], capture_output=True, text=True, check=True
    )
    shown, _, loaded = ran.stdout.partition("\nloaded\n")
    assert shown
    assert unwanted.isdisjoint(loaded.splitlines())


def test_a_simulation_needs_no_tables() -> None:
    """A worker process of a plan or a sweep starts a third of a second sooner."""
    code = "import sim.simulation, sim.steady, sys; print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pandas" not in ran.stdout.splitlines()


def test_the_catalog_lists_what_a_scenario_may_name() -> None:
    listed = Told("catalog", "--json").json
    [h200] = [gpu for gpu in listed["gpus"] if gpu["gpu"] == "h200_sxm"]
    assert "h200" in h200["also"]
    assert h200["usd_per_gpu_hour"]["rent_3yr"] == 2.05
    [v3] = [model for model in listed["models"] if model["model"] == "deepseek-v3"]
    assert v3["cache_bytes_per_token_fp8"] == 61 * 576
    assert {"azure-conversation", "mooncake-conversation"} <= {trace["trace"] for trace in listed["traces"]}
    assert "sglang" in {engine["engine"] for engine in listed["engines"]}


def test_the_catalog_explains_every_key() -> None:
    keys = {row["key"]: row for row in Told("catalog", "keys", "--json").json["keys"]}
    assert keys["deployment.POOL.tp"]["default"] == 1
    assert keys["workload.arrivals.poisson.rate_per_s"]["takes"] == "a number from 1e-6 to 1e6 per second"
    assert all(row["means"] for row in keys.values())


def test_explained_groups_are_shares_of_all_operations(scenario: Path) -> None:
    """By group they make up all; what runs beside others makes the step shorter than them, and is said."""
    told = Told("explain", scenario)
    groups = told.stdout.splitlines()[1].split(";")[0]
    assert sum(map(float, re.findall(r"([\d.]+)%", groups))) == pytest.approx(100, abs=0.3)
    assert "of operations" in told.stdout.splitlines()[1]
