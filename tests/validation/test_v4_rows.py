"""Published rows of DeepSeek-V4: launched by scripts of their own, from one checkpoint."""

from pathlib import Path
from typing import Any

import pytest
from published_rows import own

from sim.validation.rows import read_rows
from sim.validation.scenarios import scenario_of


def scenario(folder: Path, **row: Any) -> Any:
    v4 = {
        "model": "DeepSeek-V4-Pro",
        "source": "InferenceX",
        "isl": 8192,
        "decode_dp_attn": 0,
        "decode_ep": 1,
    }
    return scenario_of(read_rows(own(folder, **v4, **row))[0], 100)


@pytest.mark.parametrize(
    ("hardware", "framework", "precision", "chunk", "kv_cache"),
    [
        ("h200", "vllm", "fp8", 512, "fp8"),  # --max-num-batched-tokens 512
        ("h200", "sglang", "fp8", 4096, "fp8"),
        ("b200", "sglang", "fp4", 8192, "fp8"),
        ("b300", "vllm", "fp4", 16384, "fp8_fp4"),  # 2 x 8,192; use_fp4_indexer_cache
        ("b200", "trt", "fp4", 9472, "fp8"),  # 8,192 + 1,024 + 256
    ],
)
def test_what_the_scripts_of_v4_say(
    tmp_path: Path, hardware: str, framework: str, precision: str, chunk: int, kv_cache: str
) -> None:
    """InferenceX, benchmarks/single_node/fixed_seq_len/dsv4_*.sh. Rows call the one checkpoint fp8 on Hopper and fp4 on
    Blackwell; R1's rules, such as SGLang's --scheduler-recv-interval, do not hold."""
    found = scenario(tmp_path, hardware=hardware, framework=framework, precision=precision)
    assert found.model == "deepseek-v4-pro"
    assert (found.precision.weights, found.precision.kv_cache) == ("mxfp4", kv_cache)
    assert found.deployment.serve.chunk_tokens == chunk
    assert found.scheduling.poll_every_steps is None


def test_ranks_of_attention_exchange_inside_the_experts(tmp_path: Path) -> None:
    ranks = {"hardware": "b200", "framework": "sglang", "precision": "fp4"}
    pool = scenario_of(
        read_rows(own(tmp_path, model="DeepSeek-V4-Pro", source="InferenceX", decode_dp_attn=1, **ranks))[0],
        100,
    ).deployment.serve
    assert (pool.moe_backend, pool.exchange, pool.chunk_tokens) == ("mega_moe", "all_to_all", 2048)
