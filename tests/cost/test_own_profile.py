"""A calibrated profile prices the step: before shipped tables and rules of choice, block by block and part by part."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.fit import fit_profile
from calibrate.store import save_fits, save_profile
from calibrate.tables import tables_from_records
from sim.catalog import efficiency, gpu
from sim.cost.latency import AnalyticCost, price_all
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile, read_profile
from sim.cost.record import CALIBRATION, Record
from sim.deployment.plan import resolve
from sim.explain import explain
from sim.model.operations import quantize, routed_experts
from sim.scenario.loading import load
from sim.step.stand_ins import pricing_notes

H200 = gpu("h200_sxm")
ROOFLINE = AnalyticCost(H200, efficiency())
SLOWER = 10.0


def scenario(*changes):
    return load("scenarios/chat.yaml", ["gpu=h200", *changes]).scenario


def parts(operations):
    for operation in operations:
        yield from parts(operation.parts) if operation.parts else (operation,)


def records(explained, grow=(0.5, 1.0, 2.0)):
    """Every kernel of a step, around its shape, ten times as slow as the roofline; by halves and doubles of an axis."""
    inner = {"gemm": "m", "quantize": "m", "absorb_bmm": "tokens", "moe": "rows"}
    for operation in parts(priced.operation for priced in explained.operations):
        if operation.kernel == "host":
            continue
        axis = inner.get(operation.kernel, "bytes" if "bytes" in operation.shape else "batch")
        for times in grow:
            shape = {**operation.shape, axis: operation.shape[axis] * times}
            us = SLOWER * 1e6 * ROOFLINE.price(replace(operation, shape=shape, flop=operation.flop * times,
                                                       bytes=operation.bytes * times)).seconds  # fmt: skip
            yield Record(
                operation.kernel, shape, operation.dtype, us, options=_table_options(operation), source=CALIBRATION,
                backend="mine", environment={"name": "NVIDIA H200"},
            )  # fmt: skip


def _table_options(operation):
    return {k: v for k, v in operation.options.items() if k in ("kv_cache", "stage")}


def profile(folder, found):
    header = {"gpu": "h200_sxm", "engine": "sglang", "attribution": {"source": CALIBRATION}}
    save_profile(folder, header, tables_from_records(found))
    save_fits(folder, fit_profile(read_profile(folder, fitted=False), H200))
    return folder


@pytest.fixture(scope="module")
def analytic():
    return explain(scenario("profile=analytic"), "decode", 64, 4096)


@pytest.fixture(scope="module")
def own(tmp_path_factory, analytic):
    return profile(tmp_path_factory.mktemp("own"), records(analytic))


def test_ten_times_the_roofline_is_ten_times_the_step(own, analytic):
    """Before, attention block, experts and quantisation came from shipped tables: 63 ms instead of 53."""
    slow = explain(scenario(f"profile={own}"), "decode", 64, 4096)

    def device_s(explained):
        return sum(p.total_s for p in explained.operations if p.operation.kernel != "host")

    # the fitted form's own error is some per cent; the exchange of a collective has a factor of its own in situ
    assert device_s(slow) == pytest.approx(SLOWER * device_s(analytic), rel=0.15)
    assert {p.operation.kernel for p in slow.operations if not p.latency.own} == {"host"}
    shares = slow.json()["priced_with"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["own"] > 0.9
    assert shares["shipped"] == 0


def test_the_shares_tell_own_from_shipped_fitted_and_analytic(tmp_path, analytic):
    found = [r for r in records(analytic) if r.operation in ("gemm", "moe")]
    folder = profile(tmp_path, found)
    told = explain(scenario(f"profile={folder}"), "decode", 64, 4096).json()
    shares = told["priced_with"]
    assert 0 < shares["own"] < 1 and 0 < shares["shipped"] < 1
    assert sum(shares.values()) == pytest.approx(1)
    # parts of the attention were measured, so that the shipped block does not stand before them
    assert "attention block" not in {o["name"] for o in told["operations"]}
    (note,) = [n for n in pricing_notes(resolve(scenario(f"profile={folder}"))) if "prices a step" in n]
    assert "own " in note and "shipped " in note and "quantisation" in note
    assert "priced_with" not in explain(scenario(), "decode", 64, 4096).json()


def test_a_block_of_which_nothing_was_measured_stays_the_shipped_one(tmp_path, analytic):
    folder = profile(tmp_path, [r for r in records(analytic) if r.operation == "moe"])
    cost = ProfileCost(read_profile(folder), ROOFLINE, H200)
    shipped = ProfileCost(load_profile("h200_sxm/sglang"), ROOFLINE, H200)
    block = next(p.operation for p in explain(scenario(), "decode", 64, 4096).operations if p.operation.parts)
    assert [p.latency for p in price_all([block], cost)] == [p.latency for p in price_all([block], shipped)]


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        (quantize("q", "attention", 64, 7168), None),
        (routed_experts(512, 32, 32, 7168, 2048, "fp8"), "low_latency"),
        (routed_experts(512, 32, 32, 7168, 2048, "fp8"), "normal"),
    ],
)
def test_no_rule_of_choice_stands_before_ones_own(tmp_path, operation, mode):
    us = 1e7
    shapes = [
        {**operation.shape, "m" if "m" in operation.shape else "rows": n} for n in (64.0, 512.0, 4096.0)
    ]
    found = [Record(operation.kernel, s, "fp8", us, backend="mine", source=CALIBRATION) for s in shapes]
    cost = ProfileCost(read_profile(profile(tmp_path, found)), ROOFLINE, H200)
    asked = replace(operation, options={"mode": mode} if mode else {})
    assert cost.price(asked).seconds == pytest.approx(us * 1e-6, rel=1e-3)
    assert cost.price(asked).own
    named = replace(asked, options={"backend": "triton"})
    assert not cost.price(named).own  # but what a scenario names is taken
    assert cost.price(named).seconds < 1


def test_activations_are_priced_by_what_was_measured_of_them(tmp_path):
    """Norms and SiLU x up of as many bytes are two tables of one family; each prices its own operations."""
    sizes, found = (1e3, 1e5, 1e9), []
    for us, options in ((1e3, {}), (5e3, {"function": "silu_mul"})):
        found += [
            Record("elementwise", {"bytes": s}, "bf16", us, options=options, source=CALIBRATION)
            for s in sizes
        ]
    folder = profile(tmp_path, found)
    told = {
        o["name"]: o for o in explain(scenario(f"profile={folder}"), "decode", 64, 4096).json()["operations"]
    }
    for name, us in (("shared expert: activation", 5e3), ("residual adds and norms", 1e3)):
        assert told[name]["seconds"] / told[name]["layers"] == pytest.approx(us * 1e-6, rel=1e-3)


def test_collectives_of_ones_own_are_nccls():
    """Where a step asks for NCCL by name, as beyond a node, `calibrate run` must have called it so."""
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    from calibrate.kernels.families import FAMILIES  # noqa: PLC0415 (torch is optional)

    for kernel in ("all_reduce", "all_gather", "reduce_scatter"):
        assert [b.name for b in FAMILIES[kernel].backends if b.gpu] == ["nccl"]


def test_shares_add_up_to_the_seconds(own, analytic):
    cost = ProfileCost(read_profile(own), ROOFLINE, H200)
    for priced in price_all([p.operation for p in analytic.operations], cost):
        assert np.isclose(sum(priced.latency.with_source().values()), priced.latency.seconds)
