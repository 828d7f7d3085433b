"""What a run says in the benchmark's terms, and what errors come to."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sim.validation.blame import Composition
from sim.validation.case import Case
from sim.validation.errors import by_metric, quantile, score, score_by_layout
from sim.validation.fit import host_constant, least_deviations
from sim.validation.scenarios import duration_s, outcome

CASE = Case(
    id="A", metric="tpot", published=1.0, simulated=1.0, split="train", layout="x", point="", model="", gpu="",
    engine="", precision="", phase="service",
)  # fmt: skip


def case(simulated: float, layout: str = "x", metric: str = "tpot") -> Case:
    return replace(CASE, simulated=simulated, layout=layout, metric=metric)


def run(tpot, ttft, finish, inputs, outputs, gpus=2):
    table = pd.DataFrame(
        {"tpot_s": tpot, "ttft_s": ttft, "finish_s": finish, "input_tokens": inputs, "output_tokens": outputs}
    )
    return SimpleNamespace(
        requests=table, record=SimpleNamespace(pools={"serve": SimpleNamespace(gpus=gpus)})
    )


def test_a_whole_benchmark_counts_every_request_alike() -> None:
    found = outcome(run([1, 2, 6.0], [5, 5, 5.0], [10, 20, 30.0], [100] * 3, [50] * 3), 1, 3)
    assert found.value("tpot", "p50") == 2
    assert found.value("tpot", "mean") == 3
    assert found.value("output_tput_per_gpu", "rate") == 150 / 30 / 2
    assert found.value("total_tput_per_gpu", "rate") == 450 / 30 / 2


def test_a_benchmark_cut_short_weighs_its_burst_as_the_whole_one_would() -> None:
    # conc 1: the burst is request 0; of 10 published prompts, 9 came later, here 2 stand for them with 4.5 each.
    found = outcome(run([1.0, 2.0, 2.0], [9.0, 3.0, 3.0], [10, 20, 30.0], [100] * 3, [50] * 3), 1, 10)
    assert found.value("ttft", "mean") == pytest.approx((9 + 9 * 3) / 10)
    assert found.value("ttft", "p50") == 3
    # Answers come every 10 s: ten of them take 100 s.
    assert found.value("output_tput_per_gpu", "rate") == pytest.approx(500 / 100 / 2)


def test_a_benchmark_cut_short_goes_on_at_the_rate_after_its_burst() -> None:
    """conc 2, 6 of 20 prompts. The first two start at once and take long, 25 and 45 s; then one answer comes every 5 s,
    and the last request starts with the one at 60 s. 14 more answers take 70 s: 135 s in all."""
    assert duration_s(np.array([25, 45, 50, 55, 60, 65.0]), 2, 20) == pytest.approx(65 + 14 * 5)
    assert duration_s(np.array([25, 45, 50, 55, 60, 65.0]), 2, 6) == 65


def test_medians_of_weights() -> None:
    assert quantile([3.0, 1.0, 2.0], np.ones(3), 0.5) == 2
    # Middles of the weights 1, 8, 1 are at 0.5, 5, 9.5 of 10.
    assert quantile([1.0, 2.0, 3.0], [1.0, 8.0, 1.0], 0.5) == 2
    assert quantile([0.0, 1.0], [1.0, 1.0], 0.5) == 0.5


def test_scores_by_hand() -> None:
    cases = [case(0.9), case(1.2), case(1.1)]
    found = score(cases)
    assert (found.cases, found.median, found.bias) == (3, pytest.approx(0.1), pytest.approx(0.1))
    assert found.p90 == pytest.approx(0.1 + 0.8 * 0.1)  # order statistics 0.1, 0.1, 0.2; p90 at 1.8
    assert score([]) is None


def test_a_long_sweep_does_not_outvote_the_other_layouts() -> None:
    cases = [*(case(1.5, "long") for _ in range(100)), case(1.01, "b"), case(1.02, "c")]
    assert score(cases).median == pytest.approx(0.5)
    assert score_by_layout(cases).median == pytest.approx(0.02, abs=0.01)


def test_metrics_are_scored_apart_and_together() -> None:
    medians = by_metric([case(1.1), case(1.3, metric="ttft")], lambda s: s.median)
    assert medians == {"overall": pytest.approx(0.2), "tpot": pytest.approx(0.1), "ttft": pytest.approx(0.3)}


def test_the_error_is_signed_and_the_json_has_the_names_of_the_contract() -> None:
    data = replace(CASE, published=2.0, simulated=1.5).json()
    assert data["error"] == -0.25
    assert data["band"] is None
    assert {"id", "metric", "published", "simulated", "error", "band", "split"} <= data.keys()


def test_a_difference_is_laid_on_one_group() -> None:
    made = Composition({"moe": 4.0, "attention": 5.0, "other": 0.1, "prompts": 0.9}, {}, [])
    # 12 published, 10 simulated: experts of 6 instead of 4, or attention of 7 instead of 5; 1% is no suspect.
    assert made.factors(12.0) == {"moe": 1.5, "attention": 1.4, "prompts": pytest.approx(1 + 2 / 0.9)}


def test_least_deviations_is_a_median_and_never_negative() -> None:
    ones = np.ones((3, 1))
    assert least_deviations(ones, np.array([1.0, 2.0, 10.0]), np.ones(3)) == pytest.approx([2.0])
    assert least_deviations(ones, np.array([1.0, 2.0, 10.0]), np.array([1.0, 1.0, 5.0])) == pytest.approx(
        [10.0]
    )
    assert least_deviations(ones, -np.ones(3), np.ones(3)) == pytest.approx([0.0])


def test_least_deviations_finds_constants_behind_a_few_wild_rows() -> None:
    rng = np.random.default_rng(1)
    design = rng.uniform(0, 1, (40, 3))
    target = design @ [0.5, 2.0, 0.0]
    target[:5] += 100
    assert least_deviations(design, target, np.ones(40)) == pytest.approx([0.5, 2.0, 0.0], abs=1e-6)


def test_older_releases_have_host_constants_of_their_own() -> None:
    from datetime import date  # noqa: PLC0415

    def named(framework: str, ran: date | None, by_recipe: bool = True) -> str:
        columns = {
            "framework": framework,
            "hardware": "b200",
            "precision": "fp8",
            "gpus": 8,
            "ep": 8,
            "isl": 1024,
        }
        columns |= {"osl": 1024, "conc": 64, "dp_attention": False, "spec": "none"}
        return host_constant(
            SimpleNamespace(**columns, columns=lambda: columns, ran=ran, by_recipe=by_recipe)
        )

    assert named("trt", date(2026, 1, 28)) == "trt 1.1.0rc2 fp8 host_overhead_s"
    assert named("trt", date(2026, 1, 29)) == "trt 1.2.0rc6 fp8 host_overhead_s"
    assert named("trt", date(2026, 6, 1)) == named("trt", None) == "trt host_overhead_s"
    assert named("trt", date(2026, 1, 28), by_recipe=False) == "trt host_overhead_s"
    assert named("sglang", date(2025, 12, 1)) == "sglang host_overhead_s"


def test_answers_of_one_token_have_no_tpot_and_all_else() -> None:
    found = outcome(run([np.nan] * 3, [5, 5, 5.0], [10, 20, 30.0], [100] * 3, [1] * 3), 1, 3)
    assert "tpot" not in found.values
    assert (found.value("ttft", "mean"), found.value("total_tput_per_gpu", "rate")) == (5, 303 / 30 / 2)
