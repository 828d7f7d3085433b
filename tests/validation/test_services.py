"""Published services with launch commands of their own, as scenarios."""

import pytest

from sim.deployment.plan import deploy
from sim.validation.services import benchmarks, entries, ids, service_scenario


def test_every_service_is_a_scenario_that_holds() -> None:
    assert len(ids("services")) == 32
    assert len({entry["id"] for _, entry in entries()}) == len(list(entries()))
    for kind, entry in entries():
        deploy(service_scenario(kind, entry))


def test_a_public_report_by_hand() -> None:
    """Two nodes of 8 H800, 1,024 in flight: 3,421.84 output tokens/s by the client, mean TTFT 194 s."""
    [one] = benchmarks(["R07b"], 0)
    assert one.published["output_tput_per_gpu"].value == pytest.approx(3421.84 / 16, rel=1e-4)
    assert one.published["ttft"].value == pytest.approx(194.081)
    assert one.trials[0].scenario.workload.lengths.input.uniform == (1000, 1024)
    [busy] = benchmarks(["R06b"], 0)
    assert (busy.published["tpot"].statistic, busy.published["ttft"].statistic) == ("p50", "p50")
    assert "sgl-cookbook" in busy.columns["source"]


def test_a_service_by_hand() -> None:
    """5,482.59 tokens/s of 8 H200 all told, 1,000 ShareGPT requests at once, mean TPOT 227.45 ms."""
    [one] = benchmarks(["P0559"], 0)
    assert one.published["total_tput_per_gpu"].value == pytest.approx(5482.59 / 8, rel=1e-5)
    assert (one.published["tpot"].value, one.published["tpot"].statistic) == (pytest.approx(0.22745), "mean")
    workload = one.trials[0].scenario.workload
    assert workload.arrivals.all_at_once is not None and workload.requests == one.trials[0].conc == 1000
    assert workload.lengths.input.lognormal.mean == 219.2
    [stream] = benchmarks(["P0434"], 0)
    assert stream.published["tpot"].value == pytest.approx(1 / 125)


def test_a_load_that_nobody_published_has_both_ends() -> None:
    """The most is scored, and the range is that of all."""
    [one] = benchmarks(["P0398"], 0)
    loops = [trial.scenario.workload.arrivals.closed_loop.concurrency for trial in one.trials]
    assert loops == [trial.conc for trial in one.trials] == [512, 64]
    assert one.columns["point"].startswith("2048/1024 conc 64 to 512: ")
