"""`tokenworks launch` from outside: what goes to stdout and stderr, exit codes, and the contract of its JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app

R1 = "vllm serve deepseek-ai/DeepSeek-R1 -tp 8"


class Told:
    """What a command said, and how it ended."""

    def __init__(self, *arguments: str | Path, stdin: str | None = None) -> None:
        result = CliRunner().invoke(app, ["launch", *map(str, arguments)], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.stdout, self.stderr = result.exit_code, result.stdout, result.stderr

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])


def test_the_scenario_passes_the_check_and_says_where_each_key_is_from(tmp_path: Path) -> None:
    told = Told("read", f"{R1} --enable-lora --port 9", "--gpu", "h200")
    assert told.code == 0
    path = tmp_path / "s.yaml"
    path.write_text(told.stdout)
    assert sim.load(path).deployment.serve.tp == 8  # type: ignore[union-attr]
    assert CliRunner().invoke(app, ["check", str(path)]).exit_code == 0
    keys = [line for line in told.stdout.splitlines() if not line.startswith("#") and not line.endswith(":")]
    assert all("  # " in line for line in keys)
    assert "    tp: 8                                 # -tp 8\n" in told.stdout
    assert "#   --enable-lora: adapters" in told.stdout and "--port" not in told.stdout
    assert "placeholders, since a launch command does not say them: workload, price" in told.stderr
    assert "not modelled: --enable-lora" in told.stderr


def test_json_has_the_scenario_what_is_not_modelled_and_what_is_ignored() -> None:
    told = Told("read", f"{R1} --enable-lora --port 9 --seed 1", "--gpu", "h200", "--json").json
    assert told["scenario"]["deployment"]["serve"]["gpus"] == 8
    assert [one["flag"] for one in told["not_modelled"]] == ["--enable-lora"]
    assert [one["flag"] for one in told["ignored"]] == ["--seed 1", "--port 9"]
    assert told["reasons"]["deployment.serve.tp"] == "-tp 8"
    assert told["placeholders"] == ["workload", "price"]
    assert all(len(one["why"]) > 10 for one in (*told["not_modelled"], *told["ignored"]))


def test_it_has_two_commands_and_none_of_the_extras() -> None:
    shown = Told("--help").stdout
    assert "read" in shown and "write" in shown and "calibrate" not in shown


def test_without_a_gpu_one_is_taken_and_named_as_a_placeholder() -> None:
    told = Told("read", R1, "--json")
    assert told.json["placeholders"] == ["workload", "price", "gpu"]
    assert "PLACEHOLDER" in told.json["reasons"]["gpu"]


def test_commands_come_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(f"{R1} \\\n  --config more.yaml\n")
    (tmp_path / "more.yaml").write_text("max-num-seqs: 64\nenforce-eager: true\n")
    told = Told("read", file, "--gpu", "h200", "--json").json
    assert told["scenario"]["deployment"]["serve"]["max_batch_per_gpu"] == 8
    assert told["scenario"]["scheduling"] == {"cuda_graphs": False}
    assert Told("read", "-", "--gpu", "h200", "--json", stdin=R1).json["scenario"]["engine"] == "vllm"


BAD = {
    "no such file": ((Path("nowhere.sh"),), "nowhere.sh: no such file"),
    "no launch command": (("echo hello",), "command:1:1: no launch command here"),
    "a quote left open": ((f"{R1} --served-model-name 'a",), "command:1:62: the quote ' that opens here"),
    "an unknown GPU": ((R1, "--gpu", "h2000"), "unknown gpu 'h2000'"),
    "an unknown model": (("vllm serve a/Nothing-7B -tp 8",), "command:1:12: unknown model 'Nothing-7B'"),
    "two engines": (
        (f"{R1}\npython -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1",),
        "command:2:11: a command of sglang beside one of vllm",
    ),
    "two models": ((f"{R1}\n{R1.replace('R1', 'V3')}",), "command:2:12: deepseek-ai/DeepSeek-V3 beside"),
    "two kinds of worker": ((f"{R1}\n{R1} --max-num-seqs 8",), "max_batch_per_gpu differs between workers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_2_and_says_where(case: str) -> None:
    arguments, says = BAD[case]
    told = Told("read", *arguments)
    assert (told.code, told.stdout) == (2, "")
    assert says in told.stderr


SCENARIO = """\
model: deepseek-v3.2
gpu: h200_sxm
deployment:
  serve: {gpus: 8, tp: 2, ep: 1, max_batch_per_gpu: 16}
prefix_cache: {enabled: true, scope: cluster}
workload:
  arrivals: {closed_loop: {concurrency: 8}}
  lengths: {input: {constant: 100}, output: {constant: 10}}
  requests: 8
"""


def test_write_prints_commands_and_says_what_cannot_be_said(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    told = Told("write", path)
    assert told.code == 0
    assert told.stdout.startswith("# serve worker 1 of 1, on serve0-node0\npython3 -m sglang.launch_server ")
    assert "--tp-size 8 --dp-size 4 --enable-dp-attention" in " ".join(told.stdout.split())
    assert "--max-running-requests 128" in told.stdout  # 16 per GPU on 8 GPUs
    assert "cannot be said in a command of sglang: a prefix cache of a whole cluster" in told.stderr
    assert "-tp 2 -dp 4" in Told("write", path, "--engine", "vllm").stdout
    one = Told("write", path, "--set", "deployment.serve.tp=8", "--engine", "trtllm", "--json").json
    assert one["engine"] == "trtllm" and len(one["commands"]) == 2 and len(one["cannot"]) == 1


def test_write_tells_where_a_layout_stands_that_the_engine_has_not(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    told = Told("write", path, "--engine", "trtllm")
    assert (told.code, told.stdout) == (2, "")
    assert told.stderr.startswith(
        f"{path}:4:24: deployment.serve.tp: TensorRT-LLM has attention TP over all 8"
    )
