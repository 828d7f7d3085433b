"""Requests for which there is no room: all of them is refused before the run, some are told after it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sim.cli import app
from sim.deployment.plan import deploy
from sim.deployment.room import check_room, running_blocks
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario
from sim.simulation import simulate

POOLS = {
    "prefill": {"workers": 4, "gpus": 16, "ep": 16, "memory_fraction": 0.9},
    "decode": {"workers": 2, "gpus": 32, "ep": 32},
}
RANKS = 64
"""Of the prefill pool: 4 workers of 16 GPUs, TP 1."""
BLOCK = 64


def scenario(hbm_tokens: int | None, **workload: Any) -> Scenario:
    lengths = {"input": {"constant": 100}, "output": {"constant": 10}}
    asked = workload or {"arrivals": {"all_at_once": {}}, "lengths": lengths, "requests": 1}
    cache = {"enabled": True, "scope": "cluster", "block_tokens": 64, "hbm_tokens": hbm_tokens}
    return Scenario.model_validate(
        {
            "model": "deepseek-v3.2",
            "gpu": "h100_sxm",
            "deployment": POOLS,
            "experts": {"redundant": 32},
            "prefix_cache": cache,
            "workload": asked,
            "price": {"usd_per_gpu_hour": 2.0},
        }
    )


def leaving(blocks: int) -> int:
    """HBM tokens for the prefix cache that leave each rank so many blocks."""
    whole = deploy(scenario(None)).pools["prefill"].memory.kv_blocks
    return (whole - blocks) * BLOCK * RANKS


def refused(asked: Scenario, least_tokens: int) -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(DeploymentError) as raised:
        check_room(deploy(asked), least_tokens)
    (problem,) = raised.value.problems
    return problem.path, problem.message


def test_running_sequences_have_what_the_prefix_cache_leaves() -> None:
    asked = scenario(leaving(26))
    decode = deploy(asked).pools["decode"].memory.kv_blocks
    assert running_blocks(deploy(asked)) == {"prefill": 26, "decode": decode}
    shared = scenario(None)
    assert running_blocks(deploy(shared))["prefill"] > 700


def test_a_cache_that_leaves_room_for_no_request_is_refused() -> None:
    """321 tokens are 6 blocks of 64."""
    path, says = refused(scenario(leaving(5)), 321)
    assert path == ("prefix_cache", "hbm_tokens")
    assert "leaves each rank of prefill 320 KV tokens" in says and "has 321 tokens with its answer" in says
    assert says.endswith(f"expected at most {leaving(6):,}")
    enough = scenario(leaving(6))
    check_room(deploy(enough), 321)
    check_room(deploy(scenario(leaving(1))), None)


def test_a_pool_that_is_too_small_by_itself_and_a_model_that_is_are_named() -> None:
    asked = scenario(None)
    whole = deploy(asked).pools["prefill"].memory.kv_blocks * BLOCK
    check_room(deploy(asked), whole)
    path, says = refused(asked, whole + 1)
    assert path == ("deployment", "prefill") and f"{whole:,} KV tokens" in says
    path, says = refused(asked, 163_841)
    assert path == ("workload",) and "takes 163,840" in says


def test_a_run_without_a_servable_request_does_not_start() -> None:
    with pytest.raises(DeploymentError, match="smallest request of the workload has 110 tokens"):
        simulate(scenario(leaving(1)))


def test_every_reason_of_rejection_is_told(tmp_path: Path) -> None:
    """Room for 26 blocks of 64 = 1,664 tokens in prefill; 163,840 positions; prompts with 10 tokens of answer."""
    prompts = [100, 1654, 1655, 5000, 200_000, 163_831]
    rows = "".join(f"{second},{tokens},10\n" for second, tokens in enumerate(prompts))
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    result = simulate(scenario(leaving(26), trace="t.csv"), base_folder=tmp_path)
    data = result.json()
    assert data["requests"] == {"arrived": 6, "completed": 2, "rejected": 4, "in_flight": 0}
    assert [note for note in data["notes"] if "rejected" in note] == [
        "2 of 6 requests rejected: prompt and answer exceed the 163,840 positions of deepseek-v3.2",
        "2 of 6 requests rejected: they need up to 5,010 KV tokens, "
        "a rank of the prefill pool has 1,664 beside the prefix cache",
    ]
    assert not any("rejected" in note for note in simulate(scenario(leaving(26))).notes)


def test_check_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(scenario(leaving(1)).model_dump(mode="json", exclude_none=True)))
    told = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert '"ok": false' in told.stdout and "prefix_cache" in told.stdout and "110 tokens" in told.stdout
