"""`calibrate diff`: a profile against one that is twice as fast says 2 everywhere, and what that does to a step."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate import diff
from calibrate.cli import app
from calibrate.store import save_fits, save_profile
from sim.catalog import model
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.profile import TAKEN_OUT, Table, load_profile, read_profile
from sim.kernels.family import Dims, Variant

FAST = "h200_sxm/vllm"


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A shipped profile with every time doubled: launches twice as long, rates half."""
    folder = tmp_path_factory.mktemp("slow")
    fast = load_profile(FAST)
    tables = [_twice(table) for kernel in fast.kernels for table in fast.tables(kernel)]
    save_profile(folder, {name: value for name, value in fast.header.items() if name != "tables"}, tables)

    def slower(form):
        half = {
            name: tuple(rate / 2 for rate in getattr(form, name)) for name in ("flop_per_s", "bytes_per_s")
        }
        return replace(form, launch_s=2 * form.launch_s, **half)

    save_fits(folder, {key: replace(fit, form=slower(fit.form)) for key, fit in fast.fits.items()})
    return folder


def _twice(table):
    taken = {TAKEN_OUT: 2 * table.columns[TAKEN_OUT]} if TAKEN_OUT in table.columns else {}
    return replace(table, seconds=2 * table.seconds, columns={**table.columns, **taken})


def test_twice_the_time_is_a_ratio_of_two_at_every_shape(slow):
    compared = diff.compare(read_profile(slow), load_profile(FAST))
    assert len(compared) > 5
    firsts = [
        one for one in compared if one.table.key == one.against.key
    ]  # a second back-end meets the first
    assert sum(len(one.known) for one in firsts) > 1000
    for one in firsts:
        assert np.allclose(one.known, 2.0, rtol=1e-4), one.table.key
        assert one.quantile(0.5) == pytest.approx(2.0, rel=1e-4)


def test_shapes_that_the_other_cannot_tell_are_not_compared(slow):
    """A profile with one row count beyond the other's: it lies outside of what was measured there."""
    fast = load_profile(FAST)
    gemm = fast.tables("gemm")[0]
    rows = gemm.columns["m"] == gemm.columns["m"].max()
    beyond = {**{a: v[rows] for a, v in gemm.columns.items()}, "m": 4 * gemm.columns["m"][rows]}
    table = replace(gemm, columns=beyond, seconds=gemm.seconds[rows])

    class Own:
        kernels = ("gemm",)

        def tables(self, kernel):
            return (table,)

    (one,) = diff.compare(Own(), fast)
    assert len(one.ratio) == rows.sum()
    assert len(one.known) == 0
    assert one.farthest is None


def test_the_command_tells_ratios_steps_and_writes_plots(slow, tmp_path):
    page = tmp_path / "diff.html"
    found = CliRunner().invoke(app, ["diff", str(slow), FAST, "--html", str(page), "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["tables"]["gemm/bf16"]["median"] == pytest.approx(2.0, rel=1e-4)
    assert told["only"] == {"own": [], "other": []}
    for phase in ("decode", "prefill"):
        step = told["step"][phase]
        # what no table prices (the host's share, norms by the roofline) is the same for both
        assert 1.5 < step["ratio"] < 2.0
        assert step["operations"]["attention block"]["own"] == pytest.approx(
            2 * step["operations"]["attention block"]["other"], rel=1e-3
        )
    assert "<h2>gemm/bf16</h2>" in page.read_text()
    assert "what it does to a step" in found.stderr


def test_an_unknown_profile_exits_with_two(slow):
    found = CliRunner().invoke(app, ["diff", str(slow), "h200_sxm/nobody"])
    assert found.exit_code == 2
    assert "h200_sxm/vllm" in found.stderr


def product(includes=(), seconds=10e-6):
    columns = {"m": np.array([64.0, 128.0, 256.0]), "n": np.full(3, 7168.0), "k": np.full(3, 2048.0)}
    fit = Fit(Form(1e-6, 1.0, (1e15,), (1e12,)), "linear")
    return Table(
        "gemm", Variant("fp8", {}), "", "made up", columns, np.full(3, seconds), fit, includes=includes
    )


def quantisation(seconds):
    columns = {"m": np.array([64.0, 256.0]), "k": np.full(2, 2048.0)}
    fit = Fit(Form(1e-6, 1.0, (1.0,), (1e12,)), "linear")
    return Table("quantize", Variant("fp8", {}), "", "made up", columns, np.full(2, seconds), fit)


class Made:
    """A profile of some tables."""

    name, dims = "made up", Dims.of(model("deepseek-v3.2"))

    def __init__(self, *tables):
        self.of = tables
        self.kernels = tuple(sorted({table.kernel for table in tables}))

    def tables(self, kernel):
        return tuple(table for table in self.of if table.kernel == kernel)


def test_what_only_one_was_timed_with_is_added_to_the_other():
    """A product of 8 us and its quantisation of 2 take as long as a row of 10 that holds both, either way round."""
    apart = Made(product(seconds=8e-6), quantisation(2e-6))
    together = Made(product(("quantize",)))
    for own, other in ((apart, together), (together, apart)):
        one = next(c for c in diff.compare(own, other) if c.table.kernel == "gemm")
        assert one.ratio == pytest.approx([1.0, 1.0, 1.0])
        assert one.beside == ("quantize",)
        assert "gemm/fp8 + quantize" in diff.ratio_table([one], own, other).columns[0]._cells
    assert diff.compare(together, together)[0].beside == ()


def test_a_row_with_more_in_it_is_not_held_against_one_whose_rest_nobody_measured():
    (one,) = diff.compare(Made(product()), Made(product(("quantize",))))
    assert not len(one.known)


def test_the_command_says_what_it_added(slow, tmp_path):
    """TensorRT-LLM's FP8 products were timed with the quantisation of their input; the same rows without the word."""
    trtllm = load_profile("h200_sxm/trtllm")
    tables = [replace(t, includes=()) for kernel in ("gemm", "quantize") for t in trtllm.tables(kernel)]
    save_profile(tmp_path, {name: value for name, value in trtllm.header.items() if name != "tables"}, tables)
    save_fits(tmp_path, {table.key: table.fit for table in tables})
    found = CliRunner().invoke(app, ["diff", str(tmp_path), "h200_sxm/trtllm", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout.splitlines()[-1])["tables"]
    assert told["gemm/fp8"]["beside"] == ["quantize"] and "beside" not in told["gemm/bf16"]
    assert told["gemm/fp8"]["median"] > 1.05 and told["gemm/bf16"]["median"] == pytest.approx(1.0, rel=1e-6)
    assert "measured quantize apart; it is added to compare" in found.stderr
