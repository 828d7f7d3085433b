"""Recipes of disaggregated services: which is taken for a row, and what it says."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from published_rows import own

from sim.deployment.plan import deploy
from sim.validation import launches as room
from sim.validation.launches import FILE, LAYOUT, Recipe, launched, launches
from sim.validation.rows import Row, read_rows
from sim.validation.scenarios import scenario_of

H100 = {
    "source": "InferenceX", "disagg": 1, "framework": "dynamo-trt", "hardware": "h100", "precision": "fp8",
    "prefill_workers": 1, "prefill_tp": 16, "prefill_ep": 16, "prefill_dp_attn": 1, "num_prefill_gpu": 16,
    "decode_workers": 3, "decode_tp": 16, "decode_ep": 16, "decode_dp_attn": 0, "num_decode_gpu": 48, "total_gpu": 64,
    "date": "2026-02-08", "isl": 1024, "osl": 1024,
}  # fmt: skip


def row(folder: Path, **change: Any) -> Row:
    [found] = read_rows(own(folder, **{**H100, **change}))
    return found


@pytest.mark.parametrize(("conc", "seats"), [(6, 1), (9, 2), (30, 8), (60, 16)])
def test_seats_are_those_of_the_recipe_for_that_load(tmp_path: Path, conc: int, seats: int) -> None:
    """recipes/trtllm/h100-fp8/1k1k/stp/ctx1_gen3_tep16_batch{1,2,8,16}_eplb0_mtp0.yaml: max_batch_size is of the rank,
    which has 16 GPUs here; three workers hold 3, 6, 24 and 48 of what is in flight, and the rest waits."""
    scenario = scenario_of(row(tmp_path, conc=conc), 100)
    assert deploy(scenario).pool("decode").max_sequences == seats
    assert scenario.deployment.pools()["prefill"].chunk_tokens == 2048  # max_num_tokens


def test_front_ends_and_chunks_are_those_of_the_recipe(tmp_path: Path) -> None:
    """ctx1_gen3_tep16_batch1: enable_multiple_frontends false, enable_chunked_prefill true."""
    scenario = scenario_of(row(tmp_path, conc=6), 100)
    assert scenario.router == "round_robin"
    assert scenario.scheduling.whole_prompts is False


def test_drafts_are_those_of_the_recipe(tmp_path: Path) -> None:
    """The load decides how many: ctx1_gen1_dep16_batch32_eplb0_mtp2 and ..._batch64_eplb0_mtp1."""
    one_worker = {"spec": "mtp", "decode_workers": 1, "decode_dp_attn": 1, "num_decode_gpu": 16}
    for conc, drafts, seats in ((615, 2, 32), (1229, 1, 64)):
        found = scenario_of(row(tmp_path, conc=conc, **one_worker), 100)
        assert found.speculation.draft_tokens == drafts
        assert found.deployment.pools()["decode"].max_batch_per_rank == seats


def test_what_the_row_says_wins_and_other_peoples_rows_have_no_recipe(tmp_path: Path) -> None:
    told = launched(row(tmp_path, conc=6))
    assert told["memory_fraction"] == 0.9
    said = scenario_of(row(tmp_path, conc=6, memory_fraction=0.5), 100)
    assert said.deployment.pools()["decode"].memory_fraction == 0.5
    assert launched(row(tmp_path, conc=6, source="me")) == {}
    assert launched(row(tmp_path, conc=6, disagg=0)) == {}


def test_of_several_recipes_the_nearest_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(loads: tuple[int, ...], first: int, last: int, seats: int) -> Recipe:
        days = date(2026, first, 1), date(2026, last, 1)
        return Recipe(frozenset(loads), *days, {"prefill": {}, "decode": {"seats": seats}})

    key = ("h100", "dynamo-trt", "fp8", "none", "1024", "1024", "1x16 EP16 DP16", "3x16 EP16")
    two = [recipe((6, 9), 1, 2, 1), recipe((6,), 4, 7, 2)]
    monkeypatch.setattr(room, "launches", lambda: {key: two})
    days = {"2025-12-31": 1, "2026-01-15": 1, "2026-02-20": 1, "2026-03-20": 2, "2026-12-01": 2, "": 1}
    for day, seats in days.items():
        assert launched(row(tmp_path, conc=6, date=day))["seats"] == seats
    assert launched(row(tmp_path, conc=9, date="2026-12-01"))["seats"] == 1
    assert launched(row(tmp_path, conc=7)) == {}, "for no load that is known, and the two do not agree"
    monkeypatch.setattr(room, "launches", lambda: {key: two[:1]})
    assert launched(row(tmp_path, conc=7))["seats"] == 1, "what holds of all loads"


def test_the_shipped_file_names_its_sources_and_reads() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert all(",srt-slurm:" in line or ",InferenceX " in line for line in lines[1:])
    assert tuple(lines[0].split(","))[: len(LAYOUT) - 2] == LAYOUT[:-2]
    every = [launch for same in launches().values() for launch in same]
    assert len(every) == len(lines) - 1
    assert all(launch.first <= launch.last and launch.loads for launch in every)
