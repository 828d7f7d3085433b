"""What published pools of prompts computed, beside what they can compute here."""

from pathlib import Path

import pytest
from published_rows import own

from sim.deployment.plan import resolve
from sim.explain import Explanation, explain
from sim.model.layout import Phase
from sim.scenario.schema import Scenario
from sim.validation import prompt_pools
from sim.validation.prompt_pools import full, pools, priced, published_rate
from sim.validation.rows import Row, read_rows

RACK = {
    "source": "InferenceX", "disagg": 1, "framework": "dynamo-trt", "hardware": "gb300", "precision": "fp8",
    "prefill_workers": 2, "prefill_tp": 4, "prefill_ep": 4, "prefill_dp_attn": 1, "num_prefill_gpu": 8,
    "decode_workers": 1, "decode_tp": 16, "decode_ep": 16, "decode_dp_attn": 1, "num_decode_gpu": 16,
    "total_gpu": 24, "conc": 64, "isl": 8192, "moe_backend": "deepgemm",
}  # fmt: skip


def row(folder: Path, **change: object) -> Row:
    return read_rows(own(folder, **{**RACK, **change}))[0]


def test_prompt_tokens_by_hand(tmp_path: Path) -> None:
    """3,000 tokens/s on each of 24 GPUs, of which 8,192 in 9,216 are prompts, on 8 GPUs: 8,000. By answers alone: 500
    on 16 GPUs are 8,000 a second, and eight times as many of prompts on 8: 8,000, too."""
    assert published_rate(row(tmp_path, tput_per_gpu_total=3000.0)) == pytest.approx(8000)
    assert published_rate(row(tmp_path, output_tput_per_gpu=500.0)) == pytest.approx(8000)
    assert published_rate(row(tmp_path)) == 0


def test_the_factor_would_fill_the_pool(tmp_path: Path) -> None:
    """With it the pool computes 1 / 0.95 of what is published."""
    assert full() == 0.95
    mine = row(tmp_path, tput_per_gpu_total=3000.0)
    token_s, experts_s = priced(mine)
    [pool] = pools([mine])
    assert pool.here == pytest.approx(1 / token_s)
    assert full() / (token_s + (pool.factor - 1) * experts_s) == pytest.approx(8000)


def test_a_step_is_of_the_engine_s_own_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang's is told by the plan where no column of the row says one: prompts of 922 tokens (0.9 x 1,024) fit into it
    so many times."""
    mine = row(tmp_path, isl=1024, framework="dynamo-sglang", moe_backend=None, hardware="gb200")
    scenario = prompt_pools.scenario_of(mine, mine.conc)
    assert scenario.deployment.pools()["prefill"].chunk_tokens is None
    chunk = resolve(scenario).pools["prefill"].chunk_tokens
    asked = []

    def explained(scenario: Scenario, phase: Phase, tokens: int) -> Explanation:
        asked.append(tokens)
        return explain(scenario, phase, tokens)

    monkeypatch.setattr(prompt_pools, "explain", explained)
    priced(mine)
    assert asked == [chunk // 922 * 922, 922]


def test_a_pool_without_a_kernel_of_experts_has_no_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_pools, "priced", lambda row: (1e-4, 0.0))
    assert not [*pools([row(tmp_path, tput_per_gpu_total=3000.0)])]
