"""The command from outside: exit codes, what goes to stdout and what to stderr, and no traceback on bad input."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app

GOOD = """\
model: deepseek-v3.2
gpu: h200_sxm
deployment:
  prefill: {workers: 1, gpus: 8, tp: 1, ep: 8}
  decode: {workers: 1, gpus: 16, tp: 1, ep: 16}
precision: {weights: fp8, kv_cache: fp8}
workload:
  arrivals: {poisson: {rate_per_s: 5}}
  lengths: {input: {lognormal: {mean: 1000, cv: 1.0}}, output: {constant: 50}}
duration_s: 20
price: {usd_per_gpu_hour: 2.0}
"""
DECODE = "{workers: 1, gpus: 16, tp: 1, ep: 16}"


class Told:
    """What a command said, and how it ended."""

    def __init__(self, *arguments: str | Path) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.stdout, self.stderr = result.exit_code, result.stdout, result.stderr

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    return path


BAD = {
    "a typo in a key": (("gpu:", "gpuu:"), ["s.yaml:2:1: gpuu: unknown key; did you mean 'gpu'?"]),
    "an unknown GPU": (("h200_sxm", "h2000"), ["s.yaml:2:6: gpu: ", "h200"]),
    "an unknown model": (("deepseek-v3.2", "deepseek-v32"), ["s.yaml:1:8: model: ", "deepseek-v3.2"]),
    "an unknown engine": (("duration_s: 20", "engine: slang"), ["s.yaml:10:9: engine: ", "did you mean 'sglang'?"]),
    "an unknown tier": (("{usd_per_gpu_hour: 2.0}", "{tier: rent_2yr}"), ["s.yaml:11:15: price.tier: ", "rent_3yr"]),
    "a negative number": (("rate_per_s: 5", "rate_per_s: -5"), ["8:36: ", "rate_per_s", "from 1e-6 to 1e6, got -5"]),
    "text for a number": (("duration_s: 20", "duration_s: soon"), ["s.yaml:10:13: duration_s: ", "'soon'"]),
    "a duplicate key": (("gpu: h200_sxm", "model: x"), ["s.yaml:2:1: model: duplicate key; first at line 1"]),
    "broken YAML": (("gpu: h200_sxm", "gpu: [1, 2"), ["s.yaml:3:11: not valid YAML"]),
    "TP that does not divide": ((DECODE, "{gpus: 16, tp: 3, ep: 16}"), ["s.yaml:5:26: deployment.decode.tp: "]),
    "EP that does not divide": ((DECODE, "{gpus: 16, tp: 1, ep: 7}"), ["s.yaml:5:33: deployment.decode.ep: "]),
    "a layout that does not fit": (
        (DECODE, "{gpus: 1}"), ["s.yaml:5:3: deployment.decode: ", "GB missing", "would fit"]
    ),
    "an unknown trace": (
        (GOOD[GOOD.index("workload") : GOOD.index("duration")], "workload: {trace: azure-conversations}\n"),
        ["s.yaml:7:19: workload.trace: ", "azure-conversation"],
    ),
    "a trace that is not there": (
        (GOOD[GOOD.index("workload") : GOOD.index("duration")], "workload: {trace: mine.csv}\n"),
        ["s.yaml:7:19: workload.trace: no such file: mine.csv"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD)
@pytest.mark.parametrize("command", ["check", "run", "compare"])
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    mistake: str, command: str, scenario: Path
) -> None:
    (old, new), expected = BAD[mistake]
    assert old in GOOD
    scenario.write_text(GOOD.replace(old, new, 1))
    out = scenario.parent / "out"
    told = Told(command, scenario, "--out", out)
    assert told.code == 2
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    for words in expected:
        assert words in told.stderr
    assert sum(f"{scenario.name}:" in line for line in told.stderr.splitlines()) == 1
    assert list(scenario.parent.iterdir()) == [scenario]


def test_a_trace_with_a_broken_line_is_told_with_its_own_file_and_line(scenario: Path) -> None:
    trace = scenario.parent / "mine.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,100,20\n2023-11-16 18:17:04,many,20\n"
    )
    scenario.write_text(
        GOOD[: GOOD.index("workload:")] + "workload: {trace: mine.csv}\nprice: {tier: rent_3yr}\n"
    )
    for command in ("check", "run"):
        told = Told(command, scenario)
        assert told.code == 2
        assert "mine.csv:3:21: " in told.stderr
        assert "many" in told.stderr


def test_the_mistakes_of_all_compared_files_are_told_together(scenario: Path) -> None:
    scenario.write_text(GOOD.replace("gpu:", "gpuu:"))
    other = scenario.with_name("other.yaml")
    other.write_text(GOOD.replace("duration_s: 20", "duration_s: -1"))
    told = Told("compare", scenario, other, scenario.with_name("lost.yaml"))
    assert told.code == 2
    for words in ("s.yaml:2:1: gpuu", "other.yaml:10:13: duration_s", "lost.yaml: no such file"):
        assert words in told.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("deployment.decode.tp=0", "--set deployment.decode.tp: expected a whole number"),
        ("deployment.decode.tp=3", "--set deployment.decode.tp: tp 3 does not divide"),
        ("deployment.decod.tp=3", "did you mean 'decode'?"),
        ("gpu=h2000", "--set gpu: unknown gpu 'h2000'"),
        ("gpu", "expected key.path=value"),
    ],
)
def test_a_bad_override_names_itself(override: str, words: str, scenario: Path) -> None:
    told = Told("check", scenario, "--set", override)
    assert told.code == 2
    assert words in told.stderr


def test_wrong_options_are_bad_input(scenario: Path) -> None:
    for arguments in (
        ["check"],
        ["check", scenario, "--seed", "-1"],
        ["chekc", scenario],
        ["explain", scenario, "--batch", "0"],
    ):
        assert Told(*arguments).code == 2
    told = Told("check", scenario, "--out", scenario)
    assert told.code == 2
    assert "file" in told.stderr


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
    assert f"{scenario}:1" in told.stderr.replace("\n", "") and "163,840" in told.stderr


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
        (["--help"], {"numpy", "pandas", "simpy", "scipy", "pyarrow"}),
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
    assert keys["workload.arrivals.poisson.rate_per_s"]["takes"] == "a number from 1e-6 to 1e6"
    assert all(row["means"] for row in keys.values())


def test_a_gpu_without_known_price_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(GOOD.replace("h200_sxm", "h20").replace("{usd_per_gpu_hour: 2.0}", "{tier: rent_3yr}"))
    told = Told("check", path)
    assert told.code == 2
    assert (
        "s.yaml:11:15: price.tier: the catalog has no price of h20; give price.usd_per_gpu_hour"
        in told.stderr
    )


def test_kernels_that_nobody_measured_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(GOOD.replace("ep: 16}", "ep: 16, moe_backend: tritn}"))
    for command in ("check", "run", "explain"):
        told = Told(command, path)
        assert told.code == 2
        assert (
            "s.yaml:5:62: deployment.decode.moe_backend: unknown fp8 back-end 'tritn'; expected triton"
            in told.stderr
        )


def test_a_warm_up_that_outlasts_a_trace_is_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "s.yaml", tmp_path / "t.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n20,10,5\n")
    workload = GOOD[GOOD.index("workload:") : GOOD.index("duration_s")]
    path.write_text(
        GOOD.replace(workload, "workload: {trace: t.csv}\n").replace("duration_s: 20", "warmup_s: 20")
    )
    for command in ("check", "run"):
        told = Told(command, path)
        assert told.code == 2
        assert (
            "s.yaml:8:11: warmup_s: leaves nothing to measure: the last request arrives at 20.0 s"
            in told.stderr
        )


def test_a_folder_that_is_a_file_is_told_before_the_run(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "o.txt").write_text("mine")
    told = Told("run", scenario, "--out", tmp_path / "o.txt" / "x")
    assert told.code == 2
    assert "o.txt: is a file, not a folder" in told.stderr
