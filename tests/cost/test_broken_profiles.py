"""A profile that is torn, or whose numbers cannot be, is one clear error of `check`, never a price."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sim.catalog.profile_header import plain_yaml
from sim.catalog.profiles import SHIPPED
from sim.cli import app

Break = Callable[[Path], object]
SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
profile: own/profile.yaml
deployment: {serve: {gpus: 8, ep: 8}}
workload: {requests: 5, arrivals: {poisson: {rate_per_s: 2}}, lengths: {input: {constant: 100}, output: {constant: 5}}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "h200_sxm" / "sglang", tmp_path / "own")
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path / "own"


def us(value: float) -> Break:
    """One measured time."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / "gemm.parquet")
        column = rows["us"].to_numpy().copy()
        column[3] = value
        place = rows.column_names.index("us")
        pq.write_table(rows.set_column(place, "us", pa.array(column)), folder / "gemm.parquet")

    return change


def column(name: str, values: Callable[[int], object] | None) -> Break:
    """A column of a family left out, or other values in it."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / "gemm.parquet").drop_columns([name])
        if values:
            rows = rows.append_column(name, pa.array(values(len(rows))))
        pq.write_table(rows, folder / "gemm.parquet")

    return change


def fit(key: str, value: object) -> Break:
    """One parameter of every fit."""

    def change(folder: Path) -> None:
        found = json.loads((folder / "fit.json").read_text())
        for entry in found["tables"].values():
            entry[key] = value
        (folder / "fit.json").write_text(json.dumps(found))

    return change


def text(file: str, to: Callable[[str], str]) -> Break:
    """The text of a file."""
    return lambda folder: (folder / file).write_text(to((folder / file).read_text()))


def torn(file: str) -> Break:
    """Half a file."""
    return lambda folder: (folder / file).write_bytes(
        (folder / file).read_bytes()[: (folder / file).stat().st_size // 2]
    )


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
DEVICE = "device: {memory_bytes: 1.5e+11, memory_bytes_per_s: 4.0e+12, bf16_flop_per_s: %s}\n"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (us(-5), "gemm.parquet"), (us(0), "gemm.parquet"), (us(1e12), "microseconds"), (us(np.nan), "gemm.parquet"),
        (us(np.inf), "gemm.parquet"), (torn("gemm.parquet"), "gemm.parquet"),
        (lambda folder: (folder / "gemm.parquet").unlink(), "gemm.parquet"),
        (lambda folder: (folder / "gemm.parquet").write_bytes(b""), "gemm.parquet"),
        (column("us", None), "table and us"), (column("table", None), "table and us"), (column("m", None), "lacks m"),
        (column("m", lambda n: ["x"] * n), "gemm.parquet"), (column("m", lambda n: np.full(n, -1.0)), "column m"),
        (column("m", lambda n: np.full(n, 1e300)), "column m"),
        (column("table", lambda n: np.full(n, 99)), "no rows"),
        (column("m", lambda n: [None] * n), "gemm.parquet"),
        (fit("launch_s", -1e-6), "launch_s"), (fit("launch_s", float("nan")), "launch_s"),
        (fit("launch_s", "x"), "launch_s"),
        (fit("sharpness", 0), "sharpness"), (fit("flop_per_s", [-1e15]), "flop_per_s"),
        (fit("bytes_per_s", [float("inf")]), "bytes_per_s"), (fit("bytes_per_s", [1.0] * 9), "of each per stage"),
        (fit("method", "guess"), "method"), (fit("held_out", 3), "held_out"),
        (torn("fit.json"), "fit.json"), (text("fit.json", lambda _: "[" * 100_000), "fit.json"),
        (text("fit.json", lambda _: "[]"), "fit.json"),
        (text("fit.json", lambda s: s.replace('"tables"', '"t"')), "fit.json"),
        (lambda folder: (folder / "fit.json").unlink(), "no fit of"),
        (text("profile.yaml", lambda s: BOMB + s), "anchors"),
        (text("profile.yaml", lambda s: s + "x: ["), "not valid YAML"),
        (text("profile.yaml", lambda _: "[" * 100_000), "nesting"),
        (text("profile.yaml", lambda _: ""), "expected keys"),
        (text("profile.yaml", lambda s: s.replace("kernel: gemm", "kernel: gem")), "no kernel family is called gem"),
        (text("profile.yaml", lambda s: s + DEVICE % "-1.0e+15"), "device.bf16_flop_per_s"),
        (text("profile.yaml", lambda s: s + DEVICE % ".nan"), "device.bf16_flop_per_s"),
        (text("profile.yaml", lambda s: s + "model: deepsek\n"), "deepsek"),
    ],
)  # fmt: skip
def test_a_broken_profile_is_one_error(own: Path, broken: Break, says: str) -> None:
    broken(own)
    told = CliRunner().invoke(app, ["check", str(own.parent / "s.yaml")])
    assert isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code == 2 and says in told.output and "profile" in told.output
    assert told.output.count("\n") <= 20 and len(told.output) < 3000


def test_the_same_profile_whole_prices_a_run(own: Path) -> None:
    assert CliRunner().invoke(app, ["check", str(own.parent / "s.yaml")]).exit_code == 0


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a {b: *a}", "x: !!python/object:os.system {}", "- [", "a: 1\na: b: c"]
)
def test_only_plain_yaml_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        plain_yaml(text)
