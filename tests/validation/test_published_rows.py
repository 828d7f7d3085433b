"""Reading published rows, leaving out what cannot be scored, and what their launch scripts add."""

from datetime import date
from pathlib import Path

import pytest
from published_rows import own, table

from sim.validation.cells import TableError
from sim.validation.recipes import settings
from sim.validation.rows import read_rows, read_table
from sim.validation.scenarios import scenario_of
from sim.validation.shapes import Shape
from sim.validation.skips import skipped
from sim.validation.split import split
from sim.validation.table import SHIPPED, shipped_rows


def test_a_row_is_read_in_si_units(tmp_path: Path) -> None:
    [row] = read_rows(
        table(tmp_path / "t.csv", {"framework": "sglang 0.5.6", "decode_dp_attn": 1, "decode_ep": 8})
    )
    assert row.published["tpot"].value == pytest.approx(0.0115)
    assert row.published["ttft"].value == pytest.approx(0.090)
    assert row.published["total_tput_per_gpu"].value == 80
    assert (row.framework, row.version, row.decoding.tp, row.ran) == ("sglang", "0.5.6", 1, date(2026, 3, 25))
    assert row.layout == "h200 sglang fp8 8 GPUs EP8 DP8"


def test_without_a_median_the_mean_is_compared_with_the_mean(tmp_path: Path) -> None:
    [row] = read_rows(table(tmp_path / "t.csv", {"median_tpot_ms": None, "mean_tpot_ms": 12.0}))
    assert (row.published["tpot"].value, row.published["tpot"].statistic) == (pytest.approx(0.012), "mean")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"disagg": 1}, "no layout"),
        ({"spec": "eagle3"}, "speculation 'eagle3' is not modelled; modelled: mtp"),
        ({"framework": "atom"}, "engine 'atom' is not modelled"),
        ({"precision": "int4"}, "precision 'int4' is not modelled"),
        ({"hardware": "mi355x"}, "unknown gpu 'mi355x'"),
        ({"hardware": "h20"}, "no measured profile h20_96/sglang"),
        ({"little_ratio": 1.2}, "little_ratio 1.2 is above 1.1"),
        ({"decode_ep": 3}, "no layout"),
        ({"hardware": "b200", "date": "2025-11-02"}, "EP and attention DP were not recorded yet"),
        (
            {"median_tpot_ms": None, "median_ttft_ms": None, "output_tput_per_gpu": None, "tput_per_gpu_total": None},
            "no metric",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_says_why(tmp_path: Path, change: dict, reason: str) -> None:
    rows = read_rows(table(tmp_path / "t.csv", change))
    assert reason in skipped(rows)["A"]


def test_a_row_just_within_littles_law_is_kept(tmp_path: Path) -> None:
    assert not skipped(read_rows(table(tmp_path / "t.csv", {"little_ratio": 1.1})))


def test_one_run_under_two_labels_counts_once(tmp_path: Path) -> None:
    # The label that says more is kept; 2% apart are two runs.
    rows = read_rows(
        table(
            tmp_path / "t.csv",
            {},
            {"decode_ep": 8, "median_tpot_ms": 11.6},
            {"decode_ep": 4, "median_tpot_ms": 11.83},
        )
    )  # fmt: skip
    assert {id: reason.split(" (")[0] for id, reason in skipped(rows).items()} == {
        "A": "the run of B under another label"
    }


def test_a_median_over_runs_gives_way_to_its_runs(tmp_path: Path) -> None:
    decoded = {
        "quality": "measured (config fields decoded)",
        "date": "median over runs",
        "median_tpot_ms": 15.0,
    }
    rows = read_rows(table(tmp_path / "t.csv", decoded, {}, {**decoded, "conc": 8}))
    assert list(skipped(rows)) == ["A"]
    assert rows[2].ran == date(2026, 3, 25)  # dated by the runs of its layout


def test_the_same_figures_on_another_day_are_another_run(tmp_path: Path) -> None:
    assert not skipped(read_rows(table(tmp_path / "t.csv", {}, {"date": "2026-03-26"})))
    assert list(skipped(read_rows(table(tmp_path / "t.csv", {}, {})))) == ["B"]


def test_what_is_no_table_says_so(tmp_path: Path) -> None:
    def told(text: str) -> str:
        (tmp_path / "no.csv").write_text(text)
        with pytest.raises(TableError) as error:
            read_rows(tmp_path / "no.csv")
        return str(error.value)

    assert "no.csv:1: expected the columns of inferencex_r1.csv; missing: hardware," in told("a,b\n1,2\n")
    assert "cannot be read" in told("")
    assert "no row" in told(table(tmp_path / "t.csv").read_text())
    with pytest.raises(TableError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"conc": "abc"}, "conc: expected a whole number, got 'abc'"),
        ({"conc": None}, "conc: expected a value, got nothing"),
        ({"isl": "inf"}, "isl: expected a whole number, got 'inf'"),
        ({"total_gpu": 7.5}, "total_gpu: expected a whole number, got '7.5'"),
        ({"decode_ep": -1}, "decode_ep: expected a whole number, got '-1'"),
        ({"disagg": "maybe"}, "disagg: expected 0 or 1, got 'maybe'"),
        ({"median_tpot_ms": "fast"}, "median_tpot_ms: expected a number above 0, got 'fast'"),
        ({"median_tpot_ms": 0}, "median_tpot_ms: expected a number above 0, got '0'"),
        ({"row_id": "A"}, "row_id: 'A' stands in an earlier line too"),
    ],
)
def test_a_wrong_cell_is_told_with_line_and_column(tmp_path: Path, change: dict, wrong: str) -> None:
    with pytest.raises(TableError) as error:
        read_rows(table(tmp_path / "t.csv", {}, change))
    assert str(error.value) == f"{tmp_path / 't.csv'}:3: {wrong}"


def test_a_table_may_leave_out_what_has_an_obvious_default(tmp_path: Path) -> None:
    """Aggregated, without drafts, one deployment of tensor parallelism over all GPUs."""
    file = tmp_path / "short.csv"
    file.write_text(
        "hardware,framework,precision,total_gpu,isl,osl,conc,median_tpot_ms\nh200,sglang,fp8,8,1024,1024,4,11\n"
    )
    [row] = read_rows(file)
    assert (row.id, row.spec, row.pools) == ("line-2", "none", {"serve": Shape(1, 8, 1, False)})
    file.write_text(file.read_text().replace("total_gpu", "decode_tp"))
    assert read_rows(file)[0].decoding.gpus == 8
    file.write_text(file.read_text().replace("decode_tp", "gpus"))
    with pytest.raises(TableError, match="missing: total_gpu or decode_tp"):
        read_rows(file)


def test_an_empty_line_counts_but_is_no_row(tmp_path: Path) -> None:
    names, good = table(tmp_path / "t.csv", {}).read_text().splitlines()
    (tmp_path / "t.csv").write_text(f"{names}\n\n{good}\n{good}\n")
    with pytest.raises(TableError, match=r"t\.csv:4: row_id"):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize(("flag", "tp"), [("False", 8), ("0.0", 8), ("", 8), ("True", 1), ("1.0", 1)])
def test_flags_are_read_as_tables_write_them(tmp_path: Path, flag: str, tp: int) -> None:
    assert read_rows(table(tmp_path / "t.csv", {"decode_dp_attn": flag}))[0].decoding.tp == tp


ROW = {
    "hardware": "b200",
    "framework": "trt",
    "precision": "fp8",
    "spec": "none",
    "gpus": 8,
    "ep": 8,
    "dp_attention": False,
}


@pytest.mark.parametrize(
    ("isl", "conc", "day", "tokens"),
    [
        (1024, 64, date(2025, 12, 9), 1152),  # 1024 + 64 + 64 = 18 x 64
        (1024, 100, date(2025, 12, 9), 1216),  # 1188, next multiple of 64
        (1024, 64, date(2026, 2, 1), 8192),  # the later scripts' least
        (8192, 64, date(2026, 2, 1), 8320),
    ],
)
def test_tensorrt_llm_computes_a_prompt_and_the_batch_in_a_step(
    isl: int, conc: int, day: date, tokens: int
) -> None:
    assert settings({**ROW, "isl": isl, "osl": 1024, "conc": conc}, day)["chunk_tokens"] == tokens


@pytest.mark.parametrize(
    ("hardware", "conc", "steps"), [("b200", 8, 10), ("b200", 16, 30), ("h200", 64, None)]
)
def test_sglang_polls_by_load_on_b200_only(hardware: str, conc: int, steps: int | None) -> None:
    row = {**ROW, "hardware": hardware, "framework": "sglang", "isl": 1024, "osl": 1024, "conc": conc}
    assert settings(row, None).get("poll_every_steps") == steps


def test_the_benchmark_of_a_row(tmp_path: Path) -> None:
    change = {
        "hardware": "b200",
        "precision": "fp4",
        "framework": "trt",
        "decode_ep": 8,
        "decode_dp_attn": 1,
        "conc": 64,
    }
    [row] = read_rows(table(tmp_path / "t.csv", change))
    scenario = scenario_of(row, 300)
    pool, lengths = scenario.deployment.serve, scenario.workload.lengths
    assert (pool.gpus, pool.tp, pool.ep, pool.exchange) == (8, 1, 8, "all_gather")
    assert (scenario.precision.weights, scenario.precision.attention, scenario.precision.dense) == (
        "nvfp4",
        "bf16",
        "nvfp4",
    )
    assert lengths.input.uniform == lengths.output.uniform == (819, 1024)  # 0.8 x 1024 = 819.2
    assert scenario.workload.arrivals.closed_loop.concurrency == 64
    assert scenario.workload.requests == 300
    assert scenario_of(row, 100).workload.requests == 256  # four rounds at least
    assert scenario_of(row, 2000).workload.requests == 640  # ten rounds are published
    assert scenario.scheduling.wait_all_ranks_steps == 60


def test_the_split_keeps_deployments_whole_and_h200_for_the_test() -> None:
    rows = [
        r for r in read_rows(SHIPPED) if not r.disaggregated and r.spec == "none" and r.hardware != "b300"
    ]
    halves = {
        half: {r.layout.split(" EP")[0] for r in rows if split()[r.deployment_id] == half}
        for half in ("train", "test")
    }
    assert not halves["train"] & halves["test"]
    assert {layout for layout in halves["test"] if layout.startswith("h200")}
    assert not {layout for layout in halves["train"] if layout.startswith("h200")}
    assert len(halves["train"]) == len(halves["test"]) == 3
    assert {r.deployment_id for r in shipped_rows()} == set(split())


# --- a table of one's own


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("DeepSeek-V3.2", "deepseek-v3.2"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek-v3.2-exp"),
        ("nvidia/DeepSeek-R1-0528-FP4-V2", "deepseek-r1-0528"),
        ("DeepSeek-R1-0528", "deepseek-r1-0528"),
    ],
)
def test_the_model_is_the_one_of_the_row(tmp_path: Path, name: str, model: str) -> None:
    [row] = read_rows(own(tmp_path, model=name))
    assert (row.model, scenario_of(row, 100).model) == (model, model)
    assert ("v3.2" in model) == ("v3.2" in row.layout)


def test_a_model_that_the_catalog_has_not_is_left_out_with_its_name(tmp_path: Path) -> None:
    rows = read_rows(own(tmp_path, model="DeepSeek-V9-Pro"))
    assert "not in the catalog: unknown model 'DeepSeek-V9-Pro'" in skipped(rows)["X"]


def test_only_rows_that_inferencex_started_take_its_flags(tmp_path: Path) -> None:
    """Its TensorRT-LLM FP8 scripts ask for trtllm-gen experts and an FP8 cache; nobody else's rows do."""
    for column in ({"source": "InferenceX DB dump"}, {"image": "ghcr.io/inferencemax/trt:1"}):
        [theirs] = read_rows(own(tmp_path, **column))
        scenario = scenario_of(theirs, 100)
        assert (scenario.deployment.serve.moe_backend, scenario.precision.kv_cache) == ("trtllm_gen", "fp8")
    [mine] = read_rows(own(tmp_path))
    pool = scenario_of(mine, 100).deployment.serve
    assert (pool.moe_backend, pool.chunk_tokens, pool.memory_fraction, pool.exchange) == (
        None,
        None,
        None,
        None,
    )
    assert scenario_of(mine, 100).precision.kv_cache == "bf16"
    told = {"kv_cache": "fp8", "chunk_tokens": 4096, "memory_fraction": 0.7, "moe_backend": "cutlass"}
    [mine] = read_rows(own(tmp_path, **told))
    pool = scenario_of(mine, 100).deployment.serve
    assert (pool.moe_backend, pool.chunk_tokens, pool.memory_fraction) == ("cutlass", 4096, 0.7)
    assert scenario_of(mine, 100).precision.kv_cache == "fp8"
    for wrong in ({"kv_cache": "int4"}, {"memory_fraction": 1.5}, {"chunk_tokens": 0}):
        with pytest.raises(TableError, match=next(iter(wrong))):
            read_rows(own(tmp_path, **wrong))


def test_all_rows_that_ship_are_of_inferencex_and_one_model() -> None:
    rows = read_rows(SHIPPED)
    assert all(row.by_recipe for row in rows) and {row.model for row in rows} == {"deepseek-r1"}


def test_rows_without_an_id_of_their_deployment_repeat_only_their_like(tmp_path: Path) -> None:
    lines = own(tmp_path).read_text().splitlines()
    others = [lines[1].replace("X,", f"{n},", 1).replace(old, new) for n, old, new in (
        ("Y", "b200", "h200"), ("Z", "DeepSeek-R1-0528", "DeepSeek-V3.2"), ("W", "A7", "A8"))]  # fmt: skip
    (tmp_path / "own.csv").write_text("\n".join([*lines, *others]) + "\n")
    reasons = skipped(read_rows(tmp_path / "own.csv"))
    assert "another source" in reasons["X"] + reasons.get("W", "") or "another source" in reasons["W"]
    assert not any("another" in reasons.get(id, "") for id in "YZ")


def test_columns_that_nobody_reads_are_named_once(tmp_path: Path) -> None:
    assert read_table(own(tmp_path)).ignored == ("rack", "driver")
