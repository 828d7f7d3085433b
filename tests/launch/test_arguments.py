"""Flags are read as the engines' parsers read them."""

from typing import Any

import pytest

from sim.launch.arguments import Arguments, read_arguments
from sim.launch.shell import read_script
from sim.launch.table import table
from sim.scenario.errors import ScenarioError


def arguments(engine: str, text: str) -> Arguments:
    [statement] = read_script(text, "command").statements
    return read_arguments(statement.words, table(engine))


def settings(engine: str, text: str) -> dict[str, Any]:
    return {name: given.value for name, given in arguments(engine, text).settings.items()}


SPELLED = {
    "long": ("vllm", "--tensor-parallel-size 8", {"tp": 8}),
    "short": ("vllm", "-tp 8 -dp 2 -ep", {"tp": 8, "dp": 2, "ep": True}),
    "with an equals sign": ("vllm", "--tensor-parallel-size=8 -dp=2", {"tp": 8, "dp": 2}),
    "underscores": (
        "vllm",
        "--max_num_seqs 256 --gpu_memory_utilization=0.9",
        {"seats": 256, "memory_fraction": 0.9},
    ),
    "abbreviated": ("sglang", "--tp 8 --dp 4 --mem-frac 0.8", {"tp": 8, "dp": 4, "memory_fraction": 0.8}),
    "another name": ("sglang", "--data-parallel-size 4 --ep 8", {"dp": 4, "ep": 8}),
    "a negative number": ("sglang", "--chunked-prefill-size -1", {"chunk": -1}),
    "thousands": ("vllm", "--max-num-batched-tokens 8k --max-num-seqs 1K", {"chunk": 8000, "seats": 1024}),
    "the last one wins": ("vllm", "-tp 4 --tensor-parallel-size 8", {"tp": 8}),
    "switched off": ("vllm", "--no-enable-prefix-caching", {"prefix_cache": False}),
    "a switch with a value": (
        "vllm",
        "--enable-expert-parallel=False --enforce-eager true",
        {"ep": False, "no_graphs": True},
    ),
    "JSON": ("vllm", '--speculative-config {"method":"mtp"}', {"spec": {"method": "mtp"}}),
    "JSON by dots": (
        "vllm",
        "--speculative-config.method mtp --speculative-config.num_speculative_tokens=2",
        {"spec": {"method": "mtp", "num_speculative_tokens": 2}},
    ),
    "JSON by dots on top of JSON": (
        "vllm",
        "--eplb-config.step_interval 9 --eplb-config '{\"num_redundant_experts\": 32}'",
        {"eplb_config": {"num_redundant_experts": 32, "step_interval": 9}},
    ),
    "TensorRT-LLM's underscores": ("trtllm", "--tp_size 8 --ep_size 4", {"tp": 8, "ep": 4}),
}


@pytest.mark.parametrize("case", SPELLED)
def test_a_flag_is_known_in_every_spelling(case: str) -> None:
    engine, text, expected = SPELLED[case]
    assert settings(engine, text) == expected


WRONG = {
    "no value": ("vllm", "-tp --enforce-eager", "command:1:1: -tp needs a value after it"),
    "no value at the end": ("sglang", "--tp-size", "command:1:1: --tp-size needs a value"),
    "no number": ("sglang", "--tp eight", "command:1:6: --tp takes a whole number from 1, got 'eight'"),
    "no GPUs": ("vllm", "-dp 0", "command:1:5: -dp takes a whole number from 1, got '0'"),
    "no object": ("vllm", "-sc 3", "command:1:5: -sc takes an object, {...}, got '3'"),
    "no finite number": (
        "vllm",
        "--gpu-memory-utilization nan",
        "command:1:26: --gpu-memory-utilization takes a number",
    ),
    "no fraction": (
        "vllm",
        "--gpu-memory-utilization lots",
        "command:1:26: --gpu-memory-utilization takes a number",
    ),
    "no JSON": ("vllm", "--speculative-config '{a}'", "command:1:22: --speculative-config takes JSON"),
    "several flags": ("sglang", "--speculative-num 3", "command:1:1: --speculative-num may be any of"),
    "a variable": ("vllm", "-tp $TP", "command:1:5: $TP is not known here"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_broken_flag_is_an_error_at_its_place(case: str) -> None:
    engine, text, expected = WRONG[case]
    with pytest.raises(ScenarioError) as caught:
        arguments(engine, text)
    assert str(caught.value).startswith(expected)


def test_flags_that_do_not_matter_are_listed_with_a_reason() -> None:
    found = arguments("vllm", "--host $HOST --api-key a b --trust-remote-code --seed 1")
    assert [told.flag for told in found.ignored] == [
        "--host $HOST",
        "--api-key a b",
        "--trust-remote-code",
        "--seed 1",
    ]


def test_flags_that_matter_and_are_not_modelled_are_told_unless_they_say_nothing() -> None:
    found = arguments(
        "sglang", "--disable-overlap-schedule --dcp-size 2 --attn-cp-size 1 --fp8-gemm-backend auto"
    )
    assert [told.flag for told in found.not_modelled] == ["--disable-overlap-schedule", "--dcp-size 2"]
    assert [told.flag for told in found.ignored] == ["--attn-cp-size 1", "--fp8-gemm-backend auto"]


def test_an_unknown_flag_is_named_with_its_values_and_the_nearest_one() -> None:
    [told] = arguments("sglang", "--tp-sise 8 9 --tp-size 8").not_modelled
    assert told.flag == "--tp-sise 8 9"
    assert told.why == "no flag that is known of sglang 0.5.23; the nearest known one is --tp-size"
