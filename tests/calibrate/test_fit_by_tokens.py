"""Fits along the tokens of all prompts together, and launches that hide behind the work: chosen where they tell
left-out shapes better, and priced as they were fitted."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.fit import fit_again, fit_table
from calibrate.store import save_fits
from sim.catalog import gpu, model
from sim.cost.fits import Fit, read_fits
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Table
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Variant

H200 = gpu("h200_sxm")
DIMS = Dims.of(model("deepseek-v3.2"))
LOGITS, BLOCK = Variant("fp8", {}), Variant("fp8", {"kv_cache": "fp8", "branch": "sparse"})
FORM = Form(2e-6, 2.0, (1e15,), (3e12,))
TRUTH = Form(9e-4, 2.0, (6e14, 4e14, 3e14), (3e12, 2e12, 3e12), hiding=5.0)
"""0.9 ms of launches, which 5 as a norm joins with the work almost as the longer of the two."""


def logits_table():
    """One to 16 prompts of 64 to 1,024 tokens; every doubling of all tokens moves the time off the form by 30%."""
    batch, new, cached = (
        axis.ravel() for axis in np.meshgrid([1, 2, 4, 8, 16], [64, 128, 256, 512, 1024], [0, 4096])
    )
    columns = {"batch": batch, "new": new, "context": cached + new, "index_heads": np.full(batch.size, 64)}
    columns = {axis: values.astype(float) for axis, values in columns.items()}
    stages = FAMILIES["index_logits"].work(columns, LOGITS, DIMS)
    wave = 1 + 0.3 * (np.log2(batch * new) % 2)
    return Table("index_logits", LOGITS, "", "a test", columns, FORM.seconds_each(stages, batch.size) * wave)


def block_table():
    heads, batch, new, cached = (
        axis.ravel().astype(float)
        for axis in np.meshgrid([16, 32, 64, 128], [1, 4, 16], [128, 512, 2048], [2048, 8192, 32768])
    )
    columns = {"heads": heads, "batch": batch, "new": new, "cached": cached}
    stages = FAMILIES["dsa_prefill_block"].work(columns, BLOCK, DIMS)
    return Table("dsa_prefill_block", BLOCK, "", "a test", columns, TRUTH.seconds_each(stages, heads.size))


def test_what_follows_the_tokens_of_all_prompts_is_fitted_along_them():
    """Two prompts of 512 tokens tell one of 1,024 what their shapes apart do not: a 30% step at each doubling."""
    fit = fit_table(logits_table(), DIMS, H200)
    assert fit.by_tokens
    assert fit.held_out["batch"]["median"] < 0.05


def test_prices_lie_between_shapes_of_as_many_tokens_and_else_between_those_of_the_axes():
    table = replace(logits_table(), fit=Fit(FORM, "linear", by_tokens=True))
    together, apart = PricedTable(table, DIMS), PricedTable(replace(table, fit=Fit(FORM, "linear")), DIMS)
    shape = {"batch": 3, "new": 256, "context": 256.0, "index_heads": 64}  # 768 tokens, between 512 and 1,024
    at = {
        (tokens, batch): apart.seconds(
            {**shape, "batch": batch, "new": tokens / batch, "context": tokens / batch}
        )[0]
        for tokens in (512, 1024)
        for batch in (2, 4)
    }
    assert together.seconds(shape) == (pytest.approx(np.mean(list(at.values()))), "measured")
    # Three prompts of 64: of 128 tokens no more than two were measured, so that only the axes enclose them.
    least = {**shape, "new": 64, "context": 64.0}
    assert together.seconds(least) == apart.seconds(least)
    beyond = {**shape, "batch": 32}
    assert together.seconds(beyond) == apart.seconds(beyond)
    for row in range(len(table.seconds)):
        measured = {axis: float(values[row]) for axis, values in table.columns.items()}
        assert together.seconds(measured) == (pytest.approx(table.seconds[row]), "measured")


def test_launches_beside_the_work_are_found_again():
    fit = fit_table(block_table(), DIMS, H200)
    assert fit.form.launch_s == pytest.approx(9e-4, rel=0.1)
    assert fit.form.hiding > 2
    assert max(errors["p90"] for errors in fit.held_out.values()) < 0.02


def test_where_launches_were_taken_out_none_are_left_to_hide():
    table = block_table()
    fit = fit_table(table, DIMS, H200)
    stages = FAMILIES["dsa_prefill_block"].work(table.columns, BLOCK, DIMS)
    kernels = replace(TRUTH, launch_s=2e-5, hiding=1.0).seconds_each(stages, len(table.seconds))
    taken = {**table.columns, TAKEN_OUT: (table.seconds - kernels) * 1e6}
    form = fit_again(fit, replace(table, columns=taken, seconds=kernels), DIMS, H200).form
    assert form.hiding == 1.0
    assert form.launch_s < 1e-4


def test_a_fit_by_tokens_is_read_as_it_was_written(tmp_path):
    fit = Fit(TRUTH, "fitted", by_tokens=True)
    save_fits(tmp_path, {"x": fit, "y": Fit(FORM, "linear")})
    assert read_fits(tmp_path / "fit.json") == {"x": fit, "y": Fit(FORM, "linear")}
    assert (tmp_path / "fit.json").read_text().count("by_tokens") == 1
