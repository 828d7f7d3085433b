"""Records that cannot be are one sentence of `calibrate fit`, and the earlier profile stays as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.cases import plan
from sim.catalog import efficiency, gpu, model
from sim.cli import app
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import read_profile
from sim.cost.record_form import check_record
from sim.cost.sound import check_columns
from sim.cost.words import DTYPES
from sim.model.operations import gemm

ENVIRONMENT = {"name": "NVIDIA H200", "memory_bytes": 1.514e11, "device": "cuda"}

B200 = gpu("b200_sxm")
SHAPE = {"m": 32, "n": 512, "k": 512}
LONG = "x" * 100_000


def record(m: int, **changes: Any) -> dict[str, Any]:
    return {
        "operation": "gemm", "shape": {"m": m, "n": 512, "k": 512}, "dtype": "fp8", "us_median": 5 + m / 100,
        "ok": True, "us_p10": 4.9, "us_p90": 9.0, "source": "t", "backend": "torch", "environment": ENVIRONMENT,
        **changes,
    }  # fmt: skip


def written(folder: Path, *more: Any) -> Path:
    rows = [record(m) for m in (1, 2, 4, 8, 16)]
    file = folder / "records.jsonl"
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in (*rows, *more)))
    return file


def fit(folder: Path, *more: Any) -> Any:
    return CliRunner().invoke(
        app, ["calibrate", "fit", str(written(folder, *more)), "--out", str(folder / "p")]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "bad",
    [
        record(32, us_median=-5), record(32, us_median=0), record(32, us_median=float("nan")),
        record(32, us_median=float("inf")), record(32, us_median=1e12), record(32, us_median="fast"),
        record(32, us_median=True), record(32, us_p10=-1), record(32, us_p90="x"), record(32, shape=[1, 2]),
        record(32, shape={"m": -1, "n": 512, "k": 512}), record(32, shape={"m": "wide", "n": 512, "k": 512}),
        record(32, shape={"m": float("nan"), "n": 512, "k": 512}), record(32, options=["x"]),
        record(32, options={"a": 1}),
        record(32, dtype=8), record(32, ok="yes"), record(32, flags="throttled"), record(32, environment="H200"),
        record(32, environment={}), record(32, environment={"name": None}), record(32, environment={"name": 7}),
        record(32, environment={**ENVIRONMENT, "name": "NVIDIA H100 80GB HBM3"}),
        record(32, environment={**ENVIRONMENT, "memory_bytes": 8e10}),
        record(32, dtype="fp9"), record(32, dtype=LONG), record(32, operation=7), record(32, operation=LONG),
        record(32, backend=LONG), record(32, backend=["torch"]), record(32, source=LONG), record(32, flags=[LONG]),
        record(32, options={"kv_cache": "fp9"}), record(32, options={"mode": LONG}), record(32, options={LONG: "x"}),
        record(32, options={"stage": LONG}), record(32, shape={"m": 32, "n": 512}),
        record(32, shape={"m": 0, "n": 512, "k": 512}), record(32, shape={"m": 0.5, "n": 512, "k": 512}),
        record(32, shape={"m": 32, "n": 512, "k": 512, LONG: 1}), record(32, shape={**SHAPE, "us": 1}),
        record(32, shape={**SHAPE, "table": 1}), record(32, shape={**SHAPE, "weight": 1}),
        record(32, environment={**ENVIRONMENT, "name": LONG}), record(32, environment={**ENVIRONMENT, "model": LONG}),
        record(32, environment={**ENVIRONMENT, "model": ["x"]}),
        record(32, environment={**ENVIRONMENT, "driver": [[[[[[1]]]]]]}),
        record(32, operation="index_topk", shape={"batch": 1, "new": 64, "context": 8}),
        record(32, operation="dispatch", shape={"nodes": 9, "ep": 8, "tokens": 64, "hidden": 512, "top_k": 8}),
        record(32, operation="copy", shape={}), record(32, operation="moe_gate", shape={"experts": 8}),
        record(32, operation="moe_permute", shape={"tokens": 8, "top_k": 0}),
        record(32, operation="moe", shape={"inter": 128, "experts": 8, "hidden": 512, "rows": 64}),
        record(32, operation="dispatch", shape={"nodes": 1, "ep": 8, "tokens": 64}),
        "not json", "[" * 100_000, "3", "{}", '{"operation": "gemm", "us_median": 1e400, "shape": {}}',
    ],
)  # fmt: skip
def test_a_bad_record_is_one_sentence_and_leaves_the_earlier_fit(tmp_path: Path, bad: Any) -> None:
    assert fit(tmp_path).exit_code == 0
    before = contents(tmp_path / "p")
    assert {"profile.yaml", "fit.json", "gemm.parquet"} <= before.keys()
    told = fit(tmp_path, bad)
    assert isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code == 2 and "record" in told.output
    assert told.output.count("\n") <= 5 and len(told.output) < 2000
    assert contents(tmp_path / "p") == before
    assert {file.name for file in tmp_path.iterdir()} == {"p", "records.jsonl"}


@pytest.mark.parametrize("broken", [{"memory_bytes": "much"}, {"memory_bytes": [1]}, {"memory_bytes": 0},
                                    {"memory_bytes": True}, {"memory_bytes": float("nan")}, {"memory_bytes": 10**400},
                                    {"model": "none of the catalog"}, {"model": 5}, {"device": ["cuda"]}])  # fmt: skip
def test_an_environment_that_all_records_share_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any]
) -> None:
    """Of one record alone it would be that of another device."""
    monkeypatch.setenv("COLUMNS", "1000")
    environment = {"name": "a new GPU", "memory_bytes": 1e11, "device": "cuda", **broken}
    rows = [record(m, dtype="bf16", environment=environment) for m in (1, 2, 4, 8)]
    rows.append(record(1, operation="copy", shape={"bytes": 1e7}, us_median=20, environment=environment))
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = CliRunner().invoke(app, ["calibrate", "fit", str(file)])
    assert told.exit_code == 2 and isinstance(told.exception, SystemExit)
    assert str(file) in told.output and next(iter(broken)) in told.output
    assert told.output.count("\n") <= 5 and len(told.output) < 2000


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v3.2"])
def test_every_point_that_calibrate_run_plans_makes_a_sound_record(name: str) -> None:
    for kind, memory_bytes, gpus in (("cpu", 64e9, 1), ("cuda", 150e9, 8)):
        for operation in (case.operation for case in plan(model(name), kind, int(memory_bytes), gpus)):
            shape = {axis: float(value) for axis, value in operation.shape.items()}
            check_record(record(1, operation=operation.kernel, shape=shape, dtype=operation.dtype,
                                options=dict(operation.options)))  # fmt: skip
            check_columns(
                {axis: np.array([value]) for axis, value in (shape | {"table": 0.0, "us": 5.0}).items()}
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["NVIDIA H200", "a new GPU"])
def test_whatever_format_a_record_may_have_can_be_fitted_and_priced(
    tmp_path: Path, dtype: str, name: str
) -> None:
    environment = {**ENVIRONMENT, "name": name}
    rows = [record(m, shape={"m": m, "n": n, "k": 512}, dtype=dtype, environment=environment)
            for m in (1, 8, 64) for n in (256, 512)]  # fmt: skip
    rows += [record(1, operation="copy", shape={"bytes": 1e7}, us_median=20, environment=environment),
             record(8, dtype="bf16", environment=environment)]  # fmt: skip
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert CliRunner().invoke(app, ["calibrate", "fit", str(file)]).exit_code == 0
    cost = ProfileCost(read_profile(tmp_path / "profile"), AnalyticCost(B200, efficiency()), B200)
    assert 0 < cost.price(gemm("x", "dense", 16, 512, 512, dtype)).seconds < 1e-3


@pytest.mark.parametrize("text", ["", "\n\n", '{"operation": "gemm", "sha'])
def test_no_record_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "records.jsonl").write_text(text)
    told = CliRunner().invoke(app, ["calibrate", "fit", str(tmp_path)])
    assert told.exit_code == 2 and "holds no record" in told.output
    assert not (tmp_path / "profile").exists()


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    for name in ("/dev/zero", str(tmp_path / "none.jsonl")):
        told = CliRunner().invoke(app, ["calibrate", "fit", name, "--out", str(tmp_path / "p")])
        assert isinstance(told.exception, SystemExit) and told.exit_code == 2


def test_times_that_no_form_fits_leave_the_earlier_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(tmp_path).exit_code == 0
    before = contents(tmp_path / "p")

    def fails(*_: object) -> object:
        raise ValueError("Initial guess is outside of provided bounds")

    monkeypatch.setattr("calibrate.fit.fit_profile", fails)
    told = fit(tmp_path)
    assert told.exit_code == 2 and "no fit can be made" in told.output
    assert contents(tmp_path / "p") == before
