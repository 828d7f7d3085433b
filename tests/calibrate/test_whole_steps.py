"""Logs and traces of an engine become a profile that prices whole steps as they were timed, and says so."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from made_up_steps import LAYERS, LOADS, PROMPTS, V32, decode_s, prefill_s, run, scenario, sglang_log
from typer.testing import CliRunner

from calibrate.cli import app
from calibrate.step.fitting import fit_steps
from calibrate.step.timed import TimedStep
from sim.cli import app as tokenworks
from sim.cost.latency import AnchoredCost
from sim.cost.whole_steps import WholeStepCost, steps_named
from sim.deployment.plan import resolve
from sim.explain import explain
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import load
from sim.simulation import simulate
from sim.step.pricing import pool_step_cost, priced_by, step_operations
from sim.step.stand_ins import pricing_notes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "steps.md"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    run(sglang_log(folder / "sglang.log"), "--out", folder / "profile")
    return folder / "profile"


# From timed steps to a profile, and to a price.


def test_two_depths_tell_a_layer_and_the_step(tmp_path):
    files = [sglang_log(tmp_path / f"{layers}.log", layers) for layers in (4, 8)]
    told = run("--layers", 4, files[0], "--layers", 8, files[1], "--out", tmp_path / "profile")
    assert told["steps"]["layers"] == LAYERS and told["steps"]["depths"] == [4, 8]
    own = scenario(f"profile={tmp_path / 'profile'}")
    for at in ((1, 1000), (32, 2000), (64, 4000)):
        assert explain(own, "decode", *at).step_s == pytest.approx(decode_s(*at), rel=0.01)
    for tokens in PROMPTS:
        assert explain(own, "prefill", tokens).step_s == pytest.approx(prefill_s(tokens), rel=0.02)


def test_depths_that_differ_in_dense_layers_are_refused(tmp_path):
    files = [sglang_log(tmp_path / f"{layers}.log", layers) for layers in (3, 8)]
    code, said = run("--layers", 3, files[0], "--layers", 8, files[1], "--out", tmp_path / "profile")
    assert code == 2 and "more than the 3 dense layers" in said


def test_a_phase_of_one_depth_alone_is_refused(tmp_path):
    """Its factors would be those of four layers."""
    four, eight = (sglang_log(tmp_path / f"{layers}.log", layers) for layers in (4, 8))
    eight.write_text("\n".join(line for line in eight.read_text().splitlines() if "Prefill" not in line))
    code, said = run("--layers", 4, four, "--layers", 8, eight, "--out", tmp_path / "profile")
    assert code == 2 and "prefill steps of 4 layers alone" in said


def test_one_depth_alone_is_no_profile_of_the_model(tmp_path):
    run("--layers", 4, sglang_log(tmp_path / "4.log", 4), "--out", tmp_path / "profile")
    with pytest.raises(DeploymentError, match="4 layers, not 61"):
        explain(scenario(f"profile={tmp_path / 'profile'}"), "decode")


def test_prompts_beside_decoding_sequences_are_fitted_as_they_are_simulated():
    """Linear work on all tokens as in prefill, the attention of both."""
    decode = [TimedStep(decode_s(*at), *at, layers=LAYERS) for at in LOADS]
    alone = [TimedStep(prefill_s(t), tokens=t, pairs=t * (t + 1) / 2, held=t, layers=LAYERS) for t in PROMPTS]
    beside = [
        TimedStep(
            prefill_s(t) + LAYERS * (3e-7 * 64 + 1e-10 * 64 * 4000), 64, 4000, t, t * (t + 1) / 2, t, LAYERS
        )
        for t in PROMPTS
    ]
    both = fit_steps([*decode, *alone, *beside], V32, 1, 1, LAYERS)["prefill"]
    assert both.loads == 10
    assert both.error["p90"] < 0.02


def test_interrupted_steps_do_not_matter_where_a_load_comes_often(tmp_path):
    steps = [
        TimedStep(decode_s(*at) * times, *at, layers=LAYERS) for at in LOADS for times in (1.0, 1.0, 3.0)
    ]
    assert fit_steps(steps, V32, 1, 1, LAYERS)["decode"].error["p90"] < 0.01


def test_a_run_names_the_profile_and_tags_its_price(own):
    result = simulate(scenario(f"profile={own}")).json()
    shares = result["priced_by"]
    assert shares["fitted"] + shares["extrapolated"] == pytest.approx(1)
    assert shares["fitted"] > 0.9
    assert result["expected_error"] is None
    notes = [*pricing_notes(resolve(scenario(f"profile={own}")))]
    assert len(notes) == 2 and all("whole steps of" in note and "sglang.log" in note for note in notes)
    told = explain(scenario(f"profile={own}"), "decode", 32, 4000).json()
    assert [o["group"] for o in told["operations"]] == ["attention", "other"]
    assert all("whole decode steps of" in o["source"] for o in told["operations"])
    assert told["step_s"] == pytest.approx(decode_s(32, 4000), rel=0.01)


def test_the_simulation_asks_for_the_same_seconds(own):
    """Surface, estimate and `explain` know whole steps by the same two operations."""
    cost = pool_step_cost(resolve(scenario(f"profile={own}")), "serve")
    core_s = cost.decode_table(32).attention(32, 4000.0)[0]
    assert cost.decode_table(32).line(32, 32.0).seconds(core_s) == pytest.approx(decode_s(32, 4000), rel=0.01)


def test_an_anchor_adjusts_a_whole_step_once(own):
    steps = steps_named(str(own))
    deployment = resolve(scenario(f"profile={own}"))
    anchored = AnchoredCost(WholeStepCost(priced_by(deployment), steps, V32, "own"), 1.1, 2e-3, "mine")
    step = step_operations(deployment, "decode")
    operations = step.decode_attention(32, 4000) + step.decode_rest(32)
    total_s = sum(anchored.price(operation).seconds for operation in operations)
    assert total_s == pytest.approx(1.1 * decode_s(32, 4000) + 2e-3, rel=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["model=deepseek-v3.1"], "model deepseek-v3.2, not deepseek-v3"),
        (["engine=vllm"], "engine sglang, not vllm"),
        (["precision.weights=int4"], "weights fp8, not int4"),
        (["precision.kv_cache=bf16"], "KV cache fp8, not bf16"),
        (["speculation.draft_tokens=1"], "draft tokens 0, not 1"),
        (["deployment.serve.tp=1", "deployment.serve.ep=8"], "tp 8 and ep 1, not 8 GPUs with tp 1 and ep 8"),
    ],
)
def test_steps_of_another_service_are_refused(own, change, said):
    with pytest.raises(DeploymentError) as refused:
        simulate(scenario(f"profile={own}", *change))
    assert said in str(refused.value)


def test_formats_are_those_that_were_said(tmp_path):
    log = sglang_log(tmp_path / "sglang.log")
    formats = ("--engine", "tensorrt-llm", "--weights", "nvfp4", "--kv-cache", "bf16")
    told = run(log, *formats, "--out", tmp_path / "profile")
    assert (told["steps"]["weights"], told["steps"]["kv_cache"]) == ("nvfp4", "bf16")
    assert yaml.safe_load((tmp_path / "profile" / "profile.yaml").read_text())["engine"] == "trtllm"
    for option, wrong in (("--weights", "fp7"), ("--kv-cache", "int4"), ("--engine", "none")):
        code, said = run(log, option, wrong, "--out", tmp_path / "other")
        assert code == 2 and wrong in said and "expected" in said


def test_a_profile_that_does_not_tell_its_formats_is_noted(own, tmp_path):
    """So are steps of another GPU: nothing scales them."""
    header = yaml.safe_load((own / "profile.yaml").read_text())
    del header["steps"]["weights"], header["steps"]["kv_cache"]
    older = tmp_path / "older"
    older.mkdir()
    (older / "profile.yaml").write_text(yaml.safe_dump(header))
    foreign = scenario(f"profile={older}", "gpu=b200_sxm", "allow_foreign_profile=true")
    notes = [*pricing_notes(resolve(foreign))]
    assert any("does not tell the format of its weights and KV cache" in note for note in notes)
    assert any("whole steps of h200_sxm: nothing scales them to b200_sxm" in note for note in notes)


def test_a_pool_of_another_layout_is_priced_by_kernels_and_said_so(own):
    pools = [
        "deployment={prefill: {workers: 1, gpus: 8, tp: 8, ep: 1}, decode: {workers: 1, gpus: 8, tp: 1, ep: 8}}"
    ]
    split = load("scenarios/chat.yaml", [*pools, "duration_s=20", "warmup_s=2", f"profile={own}"]).scenario
    assert any("decode pool's layout: priced by kernels" in note for note in pricing_notes(resolve(split)))
    assert len(explain(split, "prefill", 1024).operations) == 2
    shares = simulate(split).json()["priced_by"]
    assert shares["measured"] > 0.1 and shares["fitted"] > 0.1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"decode": None}, "expected the steps that"),
        ({"gpus": "many"}, "invalid literal"),
        ({"families": 3}, "expected the steps that"),
    ],
)
def test_a_header_that_was_damaged_is_refused(own, tmp_path, damage, said):
    header = yaml.safe_load((own / "profile.yaml").read_text())
    header["steps"] |= damage
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(header))
    with pytest.raises(DeploymentError, match=said):
        simulate(scenario(f"profile={tmp_path}"))


def test_show_prints_the_profile(own):
    result = CliRunner().invoke(app, ["show", str(own), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["steps"]["model"] == "deepseek-v3.2"
    assert steps_named(str(own)).phases["decode"].loads == len(LOADS)


def test_the_example_of_the_page_is_what_the_commands_print(tmp_path, monkeypatch):
    """Its logs, its commands, its output; where only the first lines are shown, those."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    four, eight = [block for block in blocks if block.startswith("[")]
    (session,) = [block for block in blocks if block.startswith("$ tokenworks calibrate")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "four.log").write_text(four)
    (tmp_path / "eight.log").write_text(eight)
    calibrated, explained = re.findall(r"^\$ tokenworks (.+)\n((?:[^$].*\n)+)", session, re.MULTILINE)
    group, *arguments = shlex.split(calibrated[0])
    assert group == "calibrate"
    printed = [CliRunner().invoke(app, arguments).output]
    arguments = [str(ROOT / word) if word.endswith(".yaml") else word for word in shlex.split(explained[0])]
    printed.append(CliRunner().invoke(tokenworks, arguments).output)
    for found, (_, shown) in zip(printed, (calibrated, explained), strict=True):
        lines = [line.split() for line in found.splitlines() if line.strip()]
        expected = [line.split() for line in shown.splitlines()]
        assert lines[: len(expected)] == expected
