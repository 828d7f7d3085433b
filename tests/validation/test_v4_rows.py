"""Published rows of DeepSeek-V4: launched by scripts of their own, from one checkpoint."""

from pathlib import Path
from typing import Any

import pytest
from published_rows import own

from sim.validation.launches import launched
from sim.validation.rows import read_rows
from sim.validation.scenarios import scenario_of
from sim.validation.skips import general, skipped
from sim.validation.split import split_of
from sim.validation.table import SHIPPED, TABLES, UnknownCase, validate


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


ROWS = read_rows(TABLES["v4"])


def test_nearly_all_shipped_rows_can_be_expressed_and_the_others_say_why_not() -> None:
    left_out = skipped(ROWS)
    assert len(ROWS) == 279 and len(left_out) < 0.1 * len(ROWS)
    assert {general(reason).partition(";")[0] for reason in left_out.values()} == {
        "engine 'llmd-vllm' is not modelled",
        "no layout",
        "the run of another row under another label (figures within 1%)",
    }


def test_the_split_keeps_deployments_of_v4_whole_and_each_engine_in_both_halves() -> None:
    """An id tells no model: the four that R1 has too are in the half that R1's rows put them in."""
    halves = {
        half: [row for row in ROWS if split_of(row.deployment_id) == half] for half in ("train", "test")
    }
    assert sum(map(len, halves.values())) == len(ROWS)
    for rows in halves.values():
        assert {row.engine for row in rows} >= {"sglang", "trt", "vllm"}
        assert {row.spec for row in rows} == {"none", "mtp"}
    for half, other in (("train", "test"), ("test", "train")):
        assert not {r.deployment_id for r in halves[half]} & {r.deployment_id for r in halves[other]}


def test_rows_of_v4_are_a_name_of_validate() -> None:
    [row] = [row for row in ROWS if row.id == "IX00428"]
    found = validate(SHIPPED, [row.id], published=True, max_prompts=8)
    assert {case.id for case in found.cases} == {row.id} and found.cases[0].split == "train"
    assert found.cases[0].layout.endswith("deepseek-v4-pro")
    with pytest.raises(UnknownCase, match="v4"):
        validate(SHIPPED, ["v5"], published=True)


def test_recipes_of_v4_s_disaggregated_services_are_its_own() -> None:
    """srt-slurm recipes that InferenceX names; R1's are others."""
    found = [row for row in ROWS if row.disaggregated and row.id not in skipped(ROWS)]
    told = [launched(row) for row in found]
    assert sum(map(bool, told)) > 0.9 * len(told)
    [wide] = [launched(r) for r in found if r.conc == 8192 and "14 x 4" in r.layout]
    assert (wide["seats"], wide["moe_backend"], wide["exchange"]) == (18432 // 16, "mega_moe", "all_to_all")


def test_drafts_of_v4_are_accepted_as_published() -> None:
    row = next(r for r in ROWS if r.spec == "mtp" and r.framework == "trt")
    said = scenario_of(row, 50).speculation
    assert (said.task, said.thinking) == ("coding", False) and said.draft_tokens in (2, 3)


def test_answers_of_one_token_are_drawn_from_one_on(tmp_path: Path) -> None:
    found = scenario(tmp_path, osl=1, hardware="h200", framework="vllm", precision="fp8")
    assert tuple(found.workload.lengths.output.uniform) == (1, 1)
