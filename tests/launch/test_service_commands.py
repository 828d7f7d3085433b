"""The launch commands behind published measurements are read whole (GPUStack's performance lab, vLLM 0.11 and 0.13 on
8 H200; github.com/gpustack/gpustack, docs/performance-lab). What they give is written out by hand: pools as (workers,
GPUs, TP, EP, seats per GPU, chunk), model, drafts.
"""

import pytest
from launches import Pools, at, launch, pools_of

V32 = "vllm serve deepseek-ai/DeepSeek-V3.2 "
PARSERS = "--tokenizer-mode deepseek_v32 --reasoning-parser deepseek_v3 "

SERVICES: dict[str, tuple[str, Pools, str, int]] = {
    "R1": (
        "vllm serve deepseek-ai/DeepSeek-R1-0528 -tp 8",
        {"serve": (1, 8, 8, 1, 128, 8192)},
        "deepseek-r1-0528",
        0,
    ),
    "V3.2": (f"{V32}-tp 8 {PARSERS}", {"serve": (1, 8, 8, 1, 128, 8192)}, "deepseek-v3.2", 0),
    "V3.2, DP and EP": (
        f"{V32}{PARSERS}-tp 1 -dp 8 --enable-expert-parallel --max-model-len 81920",
        {"serve": (1, 8, 1, 8, 1024, 8192)},
        "deepseek-v3.2",
        0,
    ),
    "V3.2, MTP": (
        f'{V32}-tp 8 {PARSERS}--speculative-config {{"method":"mtp","num_speculative_tokens":1}}',
        {"serve": (1, 8, 8, 1, 128, 8192)},
        "deepseek-v3.2",
        1,
    ),
    "V3.2, tools": (
        f"{V32}-tp 8 {PARSERS}--tool-call-parser deepseek_v32 --enable-auto-tool-choice",
        {"serve": (1, 8, 8, 1, 128, 8192)},
        "deepseek-v3.2",
        0,
    ),
    "V3.2, shorter context": (
        f"{V32}-tp 8 {PARSERS}--max-model-len 32768",
        {"serve": (1, 8, 8, 1, 128, 8192)},
        "deepseek-v3.2",
        0,
    ),
}


@pytest.mark.parametrize("case", SERVICES)
def test_commands_behind_published_measurements_are_read(case: str) -> None:
    text, pools, model, drafts = SERVICES[case]
    found = launch(text, "h200", engine_version="0.13.0")
    assert (pools_of(found.scenario), found.scenario["model"]) == (pools, model)
    assert at(found.scenario, "speculation.draft_tokens") == drafts
    assert found.not_modelled == ()
