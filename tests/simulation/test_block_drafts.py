"""DSpark: DeepSeek-V4's drafter of whole blocks, from the checkpoint's size to a run."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from sim import catalog
from sim.catalog import accept_length, acceptance
from sim.deployment.plan import deploy, resolve
from sim.deployment.understood import understood
from sim.explain import explain
from sim.launch.read import read_launch
from sim.launch.write import write_launch
from sim.model import architecture as arch
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.step.pricing import step_operations

CODING = {"task": "coding", "thinking": True}


def scenario(speculation: dict[str, Any], **changed: Any) -> Scenario:
    form = {
        "model": "deepseek-v4-pro",
        "gpu": "b300_sxm",
        "engine": "vllm",
        "deployment": {"serve": {"gpus": 8, "tp": 8, "ep": 1, "max_batch_per_gpu": 8}},
        "speculation": speculation,
        "workload": {
            "arrivals": {"closed_loop": {"concurrency": 8}},
            "lengths": {"input": {"constant": 1000}, "output": {"constant": 100}},
            "requests": 16,
        },
    }
    return Scenario.model_validate(form | changed)


def block(drafts: int = 5, **more: Any) -> dict[str, Any]:
    return {"method": "dspark", "draft_tokens": drafts, **CODING, **more}


def test_check_says_what_drafts() -> None:
    told = [
        note
        for note in understood(scenario(block())).notes
        if "DSpark drafts with 3 layers of its own" in note
    ]
    assert len(told) == 1
    assert not any("DSpark" in note for note in understood(scenario({"draft_tokens": 2, **CODING})).notes)


def test_the_checkpoint_has_two_modules_more() -> None:
    """V4-Pro-0813 takes 893 GB on disk, the preview 865 (vLLM recipes)."""
    model = catalog.model("deepseek-v4-pro-0813").with_block_drafts()
    size = sum(arch.weight_bytes_per_gpu(model, gpus=1, weights="mxfp4", mtp=True).values())
    assert size / 1e9 == pytest.approx(893, abs=1)


@pytest.mark.parametrize(
    ("drafts", "length"), [(1, 1.84), (2, 2.51), (3, 3.01), (4, 3.36), (5, 3.61), (6, 3.77)]
)
def test_published_accept_lengths(drafts: int, length: float) -> None:
    """InferenceX, golden_al_distribution/dsv4-pro-0813-dspark.yaml."""
    chances = acceptance("deepseek-v4-pro-0813", drafts, "coding", True, "dspark")
    assert accept_length(chances) == pytest.approx(length, rel=0.005)
    assert accept_length(acceptance("deepseek-v4-pro", 1, "coding", True)) == pytest.approx(1.79, rel=0.005)


def test_a_step_drafts_a_block_once_whatever_it_verifies() -> None:
    """By hand: 8 sequences, blocks of 5: three layers of MoE over 40 tokens, the head for 40, five Markov products; of
    prompts the drafter sees the target's states alone."""
    step = step_operations(resolve(scenario(block())), "decode")
    drafted = {o.name: o for o in step.decode_rest(8) if o.name.startswith("block of drafts")}
    assert drafted["block of drafts: routed experts"].layers == 3
    assert drafted["block of drafts: head"].shape["m"] == 40
    assert drafted["block of drafts: Markov head"].layers == 5
    assert drafted["block of drafts: states for the drafter"].shape["m"] == 8 * 6
    fewer = replace(step, draft_tokens=2)
    same = [o.shape for o in fewer.decode_rest(8) if "experts" in o.name and "block" in o.name]
    assert same == [drafted["block of drafts: routed experts"].shape]
    prompts = step.prefill_rest(512)
    assert not any(o.name.startswith("MTP") for o in prompts)
    assert sum(o.name == "states for the drafter" for o in prompts) == 1


def test_a_run_makes_what_is_accepted() -> None:
    result = simulate(scenario(block()))
    assert result.record.invariants == []
    assert result.json()["requests"]["completed"] == 16
    serial, together = (
        explain(scenario(given), "decode", 8, 4000).json()
        for given in ({"draft_tokens": 5, **CODING}, block())
    )
    names = [row["name"] for row in together["operations"]]
    assert any("block of drafts" in name for name in names) and not any("later" in name for name in names)
    steps_s = [sum(row["seconds"] for row in found["operations"]) for found in (serial, together)]
    assert steps_s[1] < steps_s[0]


@pytest.mark.parametrize(
    ("changed", "speculation", "why"),
    [
        ({"model": "deepseek-v3.2"}, {"method": "dspark", "draft_tokens": 2}, "no DSpark drafter"),
        ({}, block(7), "no more tokens than one of 6"),
        ({}, block() | {"thinking": False}, "coding, thinking"),
        ({"model": "deepseek-v4-flash"}, {"method": "dspark", "draft_tokens": 5}, "no accept length"),
        ({"model": "deepseek-v4.1-flash"}, {"draft_tokens": 0}, "not modelled.*DSpark"),
    ],
)
def test_what_nobody_described(changed: dict[str, Any], speculation: dict[str, Any], why: str) -> None:
    with pytest.raises((DeploymentError, ValueError), match=why):
        deploy(scenario(speculation, **changed))


def test_fewer_are_verified_as_the_batch_grows() -> None:
    levels = [{"up_to_batch": 4, "draft_tokens": 5}, {"up_to_batch": 32, "draft_tokens": 2}]
    step = step_operations(resolve(scenario(block(adaptive=levels))), "decode")
    assert [(up_to, at.draft_tokens, at.block_tokens) for up_to, at in step.levels()][:2] == [
        (4.0, 5, 5),
        (32.0, 2, 5),
    ]


@pytest.mark.parametrize(
    ("command", "gpu", "said"),
    [
        (
            "vllm serve deepseek-ai/DeepSeek-V4-Pro --tensor-parallel-size 8 "
            """--speculative-config '{"method": "dspark", "num_speculative_tokens": 4}'""",
            "b300",
            {"method": "dspark", "draft_tokens": 4, "task": "coding", "thinking": True},
        ),
        (
            "sglang serve --model-path deepseek-ai/DeepSeek-V4-Pro --tp 8 --speculative-algorithm DSPARK",
            "b300",
            {
                "method": "dspark",
                "draft_tokens": 5,
                "task": "coding",
                "thinking": True,
            },  # the checkpoint's block
        ),
        (
            "sglang serve --model-path deepseek-ai/DeepSeek-V4-Pro --tp 8 --mem-fraction-static 0.88 "
            "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 "
            "--speculative-num-draft-tokens 4",
            "h200",
            {"draft_tokens": 3, "task": "coding", "thinking": False},
        ),
        (
            "sglang serve --model-path deepseek-ai/DeepSeek-V4-Flash --tp 4 --speculative-algorithm DSPARK",
            "b300",
            {"method": "dspark", "draft_tokens": 0},  # nobody published how many are accepted
        ),
    ],
)
def test_launch_commands_say_so(command: str, gpu: str, said: dict[str, Any]) -> None:
    """Reading and writing; the formats are V4's own where a command says nothing, and so are SGLang's 256 seats."""
    read = read_launch(command, gpu=gpu)
    found = yaml.safe_load(read.text)
    assert found["speculation"] == said
    assert found["precision"]["kv_cache"] == "fp8"
    if said["draft_tokens"]:
        written = write_launch(Scenario.model_validate(found)).text
        assert ("dspark" in written.lower()) == ("method" in said)
