"""A profile that is torn, or whose numbers cannot be, is one clear error of `check`, never a price."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from sim.catalog.profile_header import plain_yaml
from sim.catalog.profiles import SHIPPED
from sim.cli import app
from sim.cost.profile import load_profile
from sim.cost.sound import check_form, check_work

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


def column(name: str, values: Callable[[int], object] | None, family: str = "gemm") -> Break:
    """A column of a family left out, or other values in it."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / f"{family}.parquet").drop_columns([name])
        if values:
            rows = rows.append_column(name, pa.array(values(len(rows))))
        pq.write_table(rows, folder / f"{family}.parquet")

    return change


def cell(family: str, name: str, value: float, row: int = 7) -> Break:
    """One number of a family, in a row counted from 1."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / f"{family}.parquet")
        values = rows[name].to_numpy().astype(float)
        values[row - 1] = value
        place = rows.column_names.index(name)
        pq.write_table(rows.set_column(place, name, pa.array(values)), folder / f"{family}.parquet")

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


ARGUMENTS: dict[str, Callable[[Path], list[str]]] = {
    "check": lambda own: [str(own.parent / "s.yaml")],
    "show": lambda own: [str(own)],
    "fit": lambda own: [str(own)],
    "diff": lambda own: [str(own), "h200_sxm/sglang"],
}
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
DEVICE = "device: {memory_bytes: 1.5e+11, memory_bytes_per_s: 4.0e+12, bf16_flop_per_s: %s}\n"


def entry(key: str, value: str) -> Break:
    """A value of the first table's entry in the header, as YAML."""

    def change(folder: Path) -> None:
        header = yaml.safe_load((folder / "profile.yaml").read_text())
        header["tables"][0][key] = yaml.safe_load(value)
        (folder / "profile.yaml").write_text(yaml.safe_dump(header))

    return change


def section(line: str) -> Break:
    """A key of the header, instead of the one that is there."""

    def change(folder: Path) -> None:
        header = yaml.safe_load((folder / "profile.yaml").read_text()) | yaml.safe_load(line)
        (folder / "profile.yaml").write_text(yaml.safe_dump(header))

    return change


GEMM = next(table.key for table in load_profile("h200_sxm/vllm").tables("gemm"))
PRIOR = {"table": GEMM, "factor": 1.0, "spread": [0.9, 1.1], "points": 3}


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
        (text("profile.yaml", lambda s: s + "model: [1]\n"), "model: expected a name"),
        (section("attribution: x"), "attribution: expected a section"),
        (section("environment: x"), "environment: expected a section"),
        (section("coverage: {gemm: 5}"), "coverage.gemm"), (section("lacks: 5"), "lacks"),
        (entry("dtype", "fp9"), "tables.0: dtype: expected int4, mxfp4"),
        (entry("options", "{kv_cache: fp9}"), "tables.0: options.kv_cache"), (entry("kernel", "x" * 9999), "xxx"),
        (entry("id", "-1"), "tables.0.id"), (entry("id", "1" + "0" * 400), "tables.0.id"),
        (fit("prior", {**PRIOR, "profile": "none"}), "no profile `none` is shipped"),
        (fit("prior", {**PRIOR, "profile": "h200_sxm/vllm", "table": "gemm/fp9"}), "no table gemm/fp9"),
        (fit("prior", {**PRIOR, "profile": "h200_sxm/vllm", "table": GEMM}), "prior: expected a table of absorb_bmm"),
    ],
)  # fmt: skip
def test_a_broken_profile_is_one_error(own: Path, broken: Break, says: str) -> None:
    broken(own)
    told = CliRunner().invoke(app, ["check", str(own.parent / "s.yaml")])
    assert isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code == 2 and says in told.output and "profile" in told.output
    assert told.output.count("\n") <= 20 and len(told.output) < 3000


@pytest.mark.parametrize(
    "command", [["check"], ["calibrate", "show"], ["calibrate", "fit"], ["calibrate", "diff"]]
)
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (cell("gemm", "m", -3), ["gemm.parquet", "column m, row 7 of"]),
        (cell("gemm", "m", 0.5), ["gemm.parquet", "column m, row 7 of"]),
        (cell("gemm", "k", np.inf), ["gemm.parquet", "column k, row 7 of"]),
        (cell("gemm", "us", np.nan), ["gemm.parquet", "column us, row 7 of"]),
        (cell("dispatch", "nodes", 1e4), ["dispatch.parquet", "column nodes, row 7 of .* at most ep"]),
        (cell("dispatch", "nodes", 0.3), ["dispatch.parquet", "column nodes, row 7 of"]),
        (cell("dispatch", "hidden", np.nan), ["dispatch.parquet", "column hidden, row 7 of"]),
        (cell("dispatch", "table", 0.5), ["dispatch.parquet", "column table, row 7"]),
        (cell("mla_decode_block", "context", 0), ["mla_decode_block.parquet", "column context, row 7 of"]),
        (cell("index_logits", "new", 1e6), ["index_logits.parquet", "column new, row 7 of .* at most context"]),
        (cell("all_reduce", "gpus", 0), ["all_reduce.parquet", "column gpus, row 7 of"]),
        (column("active", None, "moe"), ["moe.parquet", "lacks active"]),
        (column("hidden", None, "dispatch"), ["dispatch.parquet", "lacks hidden"]),
        (text("profile.yaml", lambda s: s + "model: gpt-oss-120b\n"), ["parquet|model"]),
    ],
)  # fmt: skip
def test_a_broken_row_is_told_by_file_column_and_row_by_every_command_that_reads_it(
    own: Path, monkeypatch: pytest.MonkeyPatch, broken: Break, says: list[str], command: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    broken(own)
    told = CliRunner().invoke(app, [*command, *ARGUMENTS[command[-1]](own)])
    assert isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code == 2 and all(re.search(word, told.output) for word in says), told.output
    assert told.output.count("\n") <= 20 and len(told.output) < 3000


def test_kernels_that_the_named_model_has_not_are_told(own: Path, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "h200_sxm" / "sglang" / "deepseek-v4-pro", tmp_path / "v4")
    section("model: deepseek-v3.2")(tmp_path / "v4")
    told = CliRunner().invoke(app, ["check", str(tmp_path / "s.yaml"), "--set", f"profile={tmp_path / 'v4'}"])
    assert told.exit_code == 2 and isinstance(told.exception, SystemExit)
    assert "block.parquet" in told.output and "counted by the widths of deepseek-v3.2" in told.output


def test_work_that_cannot_be_is_told_with_its_row() -> None:
    shape, seconds = {"m": np.array([1.0, 2.0, 3.0])}, np.full(3, 5e-6)
    check_work([(shape["m"], 8.0)], shape, seconds)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(
            ValueError, match=r"row 2 of 3 of the table \(m 2\), one of 1 such: .* 0 FLOP and bytes"
        ):
            check_work([(shape["m"], 8.0), (0.0, np.array([4.0, wrong, 4.0]))], shape, seconds)


def test_a_time_far_from_the_fit_is_told_with_its_row() -> None:
    """A fit says 5 us, and 0 where there is no work and no launch cost."""
    shape, form_s = {"m": np.array([1.0, 2.0])}, np.full(2, 5e-6)
    check_form(form_s, shape, form_s * [0.02, 9000])
    for wrong_form_s, us in ((form_s, 1e-2), (form_s, 1e5), (np.array([5e-6, 0.0]), 5.0)):
        with pytest.raises(ValueError, match=r"column us, row 2 of 2 of the table \(m 2\)"):
            check_form(wrong_form_s, shape, np.array([5e-6, us * 1e-6]))


@pytest.mark.parametrize("file", ["", "profile.yaml"])
def test_a_profile_is_checked_however_its_path_names_it(own: Path, file: str) -> None:
    cell("gemm", "us", 1e7)(own)
    told = CliRunner().invoke(app, ["check", str(own.parent / "s.yaml"), "--set", f"profile={own / file}"])
    assert told.exit_code == 2 and "gemm.parquet" in told.output and "by the fit" in told.output


def test_the_same_profile_whole_prices_a_run(own: Path) -> None:
    assert CliRunner().invoke(app, ["check", str(own.parent / "s.yaml")]).exit_code == 0


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a {b: *a}", "x: !!python/object:os.system {}", "- [", "a: 1\na: b: c"]
)
def test_only_plain_yaml_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        plain_yaml(text)
