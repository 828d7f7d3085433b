"""Fitting: known parameters come back, held-out error is what it says, records become a profile."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.cli import app
from calibrate.fit import fit_table, neighbour_noise
from calibrate.show import falls, noise_floor
from calibrate.tables import NoRecords, device_ceilings, device_name, tables_from_records
from sim.catalog import gpu, model
from sim.catalog.profiles import SHIPPED
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Table, load_profile, read_profile
from sim.cost.record import BadRecord, Record, read_records, write_records
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Variant

H200 = gpu("h200_sxm")
TRUTH = Form(6e-6, 2.0, (1.2e15,), (3.5e12,))

DIMS = Dims.of(model("deepseek-v3.2"))


def gemm_table(noise=0.0, kinks=False):
    grid = np.meshgrid([16, 64, 256, 1024, 4096], [1024, 2048, 4096, 8192], [1024, 2048, 4096, 8192])
    columns = dict(zip("mnk", (axis.ravel().astype(float) for axis in grid), strict=True))
    stages = FAMILIES["gemm"].work(columns, Variant("fp8", {}), DIMS)
    seconds = TRUTH.seconds_each(stages, len(columns["m"]))
    seconds = seconds * np.exp(noise * np.random.default_rng(1).standard_normal(len(seconds)))
    return Table("gemm", Variant("fp8", {}), "", "a test", columns, seconds * (2.0 if kinks else 1.0))


def test_the_parameters_of_exact_times_come_back():
    fit = fit_table(gemm_table(), DIMS, H200)
    assert fit.form.launch_s == pytest.approx(6e-6, rel=0.02)
    assert fit.form.flop_per_s[0] == pytest.approx(1.2e15, rel=0.02)
    assert fit.form.bytes_per_s[0] == pytest.approx(3.5e12, rel=0.02)
    assert fit.method == "fitted"
    assert max(errors["p90"] for errors in fit.held_out.values()) < 0.01


def test_held_out_error_sees_noise_that_the_fit_cannot_know():
    """Left-out shapes differ from interpolated ones by at least the noise of each: 10% lognormal."""
    fit = fit_table(gemm_table(noise=0.1), DIMS, H200)
    assert 0.04 < np.mean([errors["median"] for errors in fit.held_out.values()]) < 0.15


def test_whole_values_of_an_axis_are_left_out():
    # inner values: 3 of m (16 shapes each), 2 of n and of k (20 each)
    fit = fit_table(gemm_table(), DIMS, H200)
    assert {axis: errors["shapes"] for axis, errors in fit.held_out.items()} == {"m": 48, "n": 40, "k": 40}


def test_rates_stay_below_what_the_device_can_do():
    table = gemm_table()
    fast = Table(table.kernel, table.variant, "", "", table.columns, table.seconds / 100)
    form = fit_table(fast, DIMS, H200).form
    assert form.flop_per_s[0] <= 1979e12 * 1.001
    assert form.bytes_per_s[0] <= 2 * 4.8e12 * 1.001


def test_neighbours_that_should_agree_tell_the_noise():
    # m and m + 1 differ by 4%: half-spread 2%; 100 and 200 are not neighbours
    columns = {"m": np.array([100.0, 101.0, 200.0]), "n": np.full(3, 8.0), "k": np.full(3, 8.0)}
    table = Table("gemm", Variant("fp8", {}), "", "", columns, np.array([1.0, 1.04, 2.0]))
    assert neighbour_noise(table) == pytest.approx(np.log(1.04) / 2)
    apart = Table("gemm", Variant("fp8", {}), "", "", {**columns, "n": np.arange(3.0)}, table.seconds)
    assert neighbour_noise(apart) is None


def test_the_floor_is_what_a_perfect_prediction_misses_noisy_rows_by():
    """10,000 pairs of rows, m and m + 1, whose truth is 1: what they differ by, against what each is off by."""
    pairs = np.exp(0.05 * np.random.default_rng(1).standard_normal((10_000, 2)))
    missed = np.abs(1 / pairs - 1)
    m, n = np.meshgrid([4096.0, 4097.0], np.arange(10_000.0))
    columns = {"m": m.ravel(), "n": n.ravel(), "k": np.full(m.size, 8.0)}
    table = Table("gemm", Variant("fp8", {}), "", "", columns, pairs.ravel())
    assert noise_floor(table) == pytest.approx(
        (float(np.median(missed)), float(np.quantile(missed, 0.9))), rel=0.03
    )
    assert neighbour_noise(table) < 0.75 * noise_floor(table)[0]
    assert noise_floor(replace(table, noise=0.02)) == (pytest.approx(0.02 * 2**0.5),)  # repeats, merged
    assert noise_floor(replace(table, columns={**columns, "n": np.arange(float(m.size))})) == ()


def records():
    environment = {"name": "NVIDIA H200", "memory_bytes": 150e9}
    table = gemm_table()
    for row, seconds in enumerate(table.seconds):
        shape = {axis: float(values[row]) for axis, values in table.columns.items()}
        us = float(seconds) * 1e6
        yield Record(
            "gemm", shape, "fp8", us, us_p10=us * 0.98, us_p90=us * 1.02, source="tokenworks calibrate run",
            backend="deepgemm", environment=environment,
        )  # fmt: skip
    yield Record(
        "gemm", {"m": 1, "n": 1, "k": 1}, "fp8", None, ok=False, backend="broken", environment=environment
    )
    yield Record("copy", {"bytes": 8e9}, "bf16", 2000.0, backend="torch", environment=environment)


def test_records_become_tables_by_backend():
    (table,) = tables_from_records(records())
    assert (table.kernel, table.backend, len(table.seconds)) == ("gemm", "deepgemm", 80)
    assert table.noise == pytest.approx(0.02)


def test_the_device_is_found_in_the_catalog_or_described():
    found = list(records())
    assert device_name(found) == "h200_sxm"
    ceilings = device_ceilings(found)
    assert ceilings["memory_bytes_per_s"] == pytest.approx(8e9 / 2e-3)
    largest = 2 * 4096 * 8192 * 8192 / found[79].us_median * 1e6
    assert ceilings["fp8_flop_per_s"] == pytest.approx(largest)
    other = [Record("gemm", {"m": 1, "n": 1, "k": 1}, "bf16", 1.0, environment={"name": "AMD EPYC"})]
    assert device_name(other) == "amd_epyc"
    pcie = [Record("gemm", {"m": 1, "n": 1, "k": 1}, "bf16", 1.0, environment={"name": "NVIDIA H100 PCIe"})]
    assert device_name(pcie) == "nvidia_h100_pcie"  # another memory, another clock: not the SXM module


def test_nothing_to_price_is_said():
    copies = [Record("copy", {"bytes": 1.0}, "bf16", 1.0)]
    with pytest.raises(NoRecords, match="operations found: copy"):
        tables_from_records(copies)


def test_fit_and_show_from_the_command_line(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, records())
    result = CliRunner().invoke(app, ["fit", str(path), "--out", str(tmp_path / "p"), "--json"])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout.strip().splitlines()[-1])
    assert told["families"]["gemm"]["median"] < 0.01
    profile = read_profile(tmp_path / "p")
    assert profile.gpu == "h200_sxm"
    (table,) = profile.tables("gemm")
    priced = PricedTable(table, profile.dims).seconds({"m": 64, "n": 2048, "k": 4096})
    row = next(i for i in range(80) if [table.columns[a][i] for a in "mnk"] == [64, 2048, 4096])
    assert priced == (pytest.approx(table.seconds[row]), "measured")

    page = tmp_path / "show.html"
    result = CliRunner().invoke(app, ["show", str(tmp_path / "p"), "--html", str(page), "--json"])
    assert result.exit_code == 0, result.stderr
    assert "gemm/fp8/deepgemm" in page.read_text()
    assert json.loads(result.stdout.strip().splitlines()[-1])["families"]["gemm"]["median"] < 0.01


def test_a_profile_names_the_model_whose_shapes_were_measured(tmp_path):
    """Widths that no axis carries are that model's: an indexer of 64 heads is none of 32."""
    named = [replace(r, environment={**r.environment, "model": "kimi-k2"}) for r in records()]
    write_records(tmp_path / "records.jsonl", named)
    assert CliRunner().invoke(app, ["fit", str(tmp_path)]).exit_code == 0
    assert read_profile(tmp_path / "profile").dims == Dims.of(model("kimi-k2")) != DIMS


def test_bad_input_exits_with_two(tmp_path):
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "none.jsonl")])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["show", "h200_sxm/nothing"])
    assert result.exit_code == 2
    assert "h200_sxm/vllm" in result.stderr


def test_the_overview_has_every_gpu():
    result = CliRunner().invoke(app, ["show", "--json"])
    assert result.exit_code == 0, result.stderr
    gpus = json.loads(result.stdout.strip().splitlines()[-1])["gpus"]
    assert sorted(gpus) == ["b200_sxm", "b300_sxm", "gb200_nvl72", "gb300_nvl72", "h100_sxm", "h200_sxm"]
    assert all(0 < found["mla_decode_block"]["median"] < 0.03 for found in gpus.values())


def test_the_overview_has_every_family_that_ships():
    """Of V4, whose profiles lie in the engines' folders, the families that no other model has."""
    result = CliRunner().invoke(app, ["show", "--json"])
    told = json.loads(result.stdout.strip().splitlines()[-1])
    for header in SHIPPED.rglob("profile.yaml"):
        device, engine, *model = header.parent.relative_to(SHIPPED).parts
        found = told["models"][model[0]] if model else told["gpus"]
        fits = load_profile("/".join((device, engine, *model))).fits
        assert {key.split("/")[0] for key, fit in fits.items() if fit.held_out} <= found[device].keys()
    assert "csa_decode_block" in told["models"]["deepseek-v4-pro"]["b200_sxm"]
    assert "csa_decode_block" in result.stderr


def _gemm_record(backend: str, m: int, us: float) -> Record:
    return Record("gemm", {"m": m, "n": 1024, "k": 1024}, "bf16", us, backend=backend)


def test_each_shape_is_of_the_fastest_widely_measured_back_end_that_has_it():
    """`fast` has five of eight shapes, `slow` all, `narrow` two: rows of `fast`, and of `slow` where it has none."""
    shapes = [2**i for i in range(4, 12)]
    records = [_gemm_record("slow", m, 20.0) for m in shapes]
    records += [_gemm_record("fast", m, 10.0) for m in shapes[:5]]
    records += [_gemm_record("narrow", m, 5.0) for m in shapes[:2]]
    (table,) = tables_from_records(records)
    assert table.backend == "fast+slow"
    assert table.columns["m"].tolist() == shapes
    assert (table.seconds * 1e6).tolist() == pytest.approx([10.0] * 5 + [20.0] * 3)


def test_prefill_in_the_mha_form_is_priced_for_an_fp8_cache_too():
    """Its kernel reads keys and values expanded to BF16; decode reads the cache itself."""
    shape = {"heads": 128.0, "batch": 1.0, "new": 512.0, "cached": 0.0}
    decode = {"heads": 128.0, "batch": 1.0, "context": 512.0, "queries": 1.0}
    records = [
        Record("mla_prefill", shape, "bf16", 50.0, options={"kv_cache": "bf16"}, backend="torch"),
        Record("mla_decode", decode, "bf16", 50.0, options={"kv_cache": "bf16"}, backend="torch"),
    ]
    found = {
        (t.kernel, t.variant.options["kv_cache"]): [round(us, 6) for us in t.seconds * 1e6]
        for t in tables_from_records(records)
    }
    assert found == {
        ("mla_decode", "bf16"): [50],
        ("mla_prefill", "bf16"): [50],
        ("mla_prefill", "fp8"): [50],
    }


def test_flagged_rows_weigh_less_in_the_fit(tmp_path):
    """A third of the rows twice as slow on a throttled GPU: the fit stays nearer to the others with the flag."""

    def launch_us(flags):
        found = [replace(r, flags=flags if n % 3 == 0 else (), us_median=r.us_median * (2 if n % 3 == 0 else 1))
                 for n, r in enumerate(r for r in records() if r.ok and r.operation == "gemm")]  # fmt: skip
        write_records(tmp_path / "records.jsonl", found)
        (table,) = tables_from_records(read_records(tmp_path / "records.jsonl"))
        form = fit_table(table, DIMS, H200).form
        return float(
            np.median(form.seconds_each(FAMILIES["gemm"].work(table.shape, table.variant, DIMS), 80))
        )

    truth = float(np.median(gemm_table().seconds))
    assert truth < launch_us(("throttled",)) < launch_us(())


def test_a_last_line_that_a_kill_tore_is_ignored_and_no_other(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [_gemm_record("torch", 16, 1.0), _gemm_record("torch", 32, 2.0)])
    whole = path.read_text()
    path.write_text(whole + '{"operation": "gemm", "sha')
    assert len(list(read_records(path))) == 2
    path.write_text(whole + '{"operation": "gemm", "sha\n')
    with pytest.raises(BadRecord, match=r"records\.jsonl:3"):
        list(read_records(path))


def test_falls_are_of_neighbours_along_the_innermost_axis_alone():
    """Per n: 1.0, 0.8, 2.0 ms (a fall of 20%) and 4.0, 5.0, 6.0; from 2.0 at n 1 to 4.0 at n 2 is no neighbour."""
    columns = {"m": np.array([1, 2, 3, 1, 2, 3.0]), "n": np.array([1, 1, 1, 2, 2, 2.0]), "k": np.full(6, 7.0)}
    up = Table("gemm", Variant("fp8", {}), "", "a test", columns, np.array([1, 0.8, 2, 4, 5, 6]) * 1e-3)
    # the 99th percentile of -1.5, -0.25, -0.2 and +0.2 lies 97% of the way between the last two
    assert falls(up) == pytest.approx(0.2 - 0.03 * 0.4)
    down = Table("gemm", Variant("fp8", {}), "", "a test", columns, np.array([4, 5, 6, 1, 2, 3]) * 1e-3)
    assert falls(down) == 0.0
