"""Bad input is one clear error at its place, with exit code 2, no traceback and nothing written."""

from pathlib import Path

import pytest
from told import GOOD, Told

DECODE = "{workers: 1, gpus: 16, tp: 1, ep: 16}"
BAD = {
    "a typo in a key": (("gpu:", "gpuu:"), ["s.yaml:2:1: gpuu: unknown key; did you mean 'gpu'?"]),
    "an unknown GPU": (("h200_sxm", "h2000"), ["s.yaml:2:6: gpu: ", "h200"]),
    "an unknown model": (("deepseek-v3.2", "deepseek-v32"), ["s.yaml:1:8: model: ", "deepseek-v3.2"]),
    "an unknown engine": (("duration_s: 20", "engine: slang"), ["s.yaml:10:9: engine: ", "did you mean 'sglang'?"]),
    "an unknown tier": (("{usd_per_gpu_hour: 2.0}", "{tier: rent_2yr}"), ["s.yaml:11:15: price.tier: ", "rent_3yr"]),
    "a negative number": (
        ("rate_per_s: 5", "rate_per_s: -5"), ["8:36: ", "rate_per_s", "from 1e-6 to 1e6 per second, got -5"]
    ),
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
