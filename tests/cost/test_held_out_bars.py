"""How well shipped tables tell shapes that were left out of them, by family and GPU."""

import numpy as np
import pytest

from calibrate.show import noise_floor
from sim.cost.profile import load_profile

MEASURED_GPUS = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200_nvl72", "gb300_nvl72")
ENGINES = ("sglang", "trtllm", "vllm")

ALLOWED = {
    "mla_decode": 0.03, "mla_decode_block": 0.03, "dsa_decode_block": 0.03, "sparse_mla_decode": 0.03,
    "mla_prefill": 0.05, "mla_prefill_block": 0.05, "dsa_prefill_block": 0.05, "index_logits": 0.05,
    "sparse_mla_prefill": 0.05, "gemm": 0.08, "moe": 0.10, "dispatch": 0.10, "combine": 0.10,
}  # fmt: skip
"""Median held-out error at most, by family."""
ALLOWED_P90 = 0.20
MISSED = {("gb300_nvl72", "dsa_prefill_block"): (0.05, 0.24)}
"""(median, p90) of what misses its bound: SGLang's and vLLM's tables scatter on GB300 (docs/CALIBRATION.md)."""


@pytest.mark.parametrize("device", MEASURED_GPUS)
def test_held_out_error_stays_in_its_band(device):
    """By family and GPU, over the values left out of every axis of every table of every engine."""
    for family, allowed in ALLOWED.items():
        held_out = [
            errors
            for engine in ENGINES
            for key, fit in load_profile(f"{device}/{engine}").fits.items()
            if key.startswith(f"{family}/")
            for errors in fit.held_out.values()
        ]
        if held_out:
            weights = [errors["shapes"] for errors in held_out]
            median, p90 = (
                np.average([errors[name] for errors in held_out], weights=weights)
                for name in ("median", "p90")
            )
            assert median <= MISSED.get((device, family), (allowed, ALLOWED_P90))[0], (device, family)
            assert p90 <= MISSED.get((device, family), (allowed, ALLOWED_P90))[1], (device, family)


BARS = {"dsa_prefill_block": 0.08, "index_logits": 0.12, "mla_decode": 0.08}
"""p90 at most along the axes that a step asks for between their values: tokens, sequences, context. Heads on a GPU are
powers of two, all of them measured, and kernels step from one to the next."""
MISSED_BARS = {
    ("gb200_nvl72", "dsa_prefill_block"): 0.11, ("gb300_nvl72", "dsa_prefill_block"): 0.22,
    ("h100_sxm", "index_logits"): 0.15, ("b200_sxm", "index_logits"): 0.135, ("b300_sxm", "index_logits"): 0.125,
    ("gb200_nvl72", "index_logits"): 0.165,
    ("h100_sxm", "mla_decode"): 0.105, ("h200_sxm", "mla_decode"): 0.095, ("b200_sxm", "mla_decode"): 0.135,
    ("b300_sxm", "mla_decode"): 0.135, ("gb200_nvl72", "mla_decode"): 0.135, ("gb300_nvl72", "mla_decode"): 0.13,
}  # fmt: skip
"""What is missed, and by how much: steps of the kernels and noise of the tables (docs/CALIBRATION.md). These values are
read off our own fits and say nothing of how good those are: they only guard against getting worse."""


@pytest.mark.parametrize("device", MEASURED_GPUS)
@pytest.mark.parametrize("family", BARS)
def test_nine_of_ten_left_out_shapes_are_told_within_their_bar(device, family):
    held_out = [
        errors
        for engine in ENGINES
        for key, fit in load_profile(f"{device}/{engine}").fits.items()
        if key.startswith(f"{family}/")
        for axis, errors in fit.held_out.items()
        if axis != "heads"
    ]
    weights = [errors["shapes"] for errors in held_out]
    p90 = np.average([errors["p90"] for errors in held_out], weights=weights)
    assert p90 <= MISSED_BARS.get((device, family), BARS[family])


@pytest.mark.parametrize("device", MEASURED_GPUS)
def test_products_are_told_almost_as_well_as_their_noise_allows(device):
    """p90 of the error on left-out values against p90 of what two rows of m and m + 1 are off by, over all tables."""
    tables = [
        (table, table.fit.held_out)
        for engine in ENGINES
        for table in load_profile(f"{device}/{engine}").tables("gemm")
    ]
    shapes = [sum(errors["shapes"] for errors in held_out.values()) for _, held_out in tables]
    p90 = [
        sum(errors["p90"] * errors["shapes"] for errors in held_out.values()) / count
        for (_, held_out), count in zip(tables, shapes, strict=True)
    ]
    floor = np.average([noise_floor(table)[1] for table, _ in tables], weights=shapes)
    assert np.average(p90, weights=shapes) <= 1.3 * floor
