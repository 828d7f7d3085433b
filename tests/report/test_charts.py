"""Charts: names and units on every axis, a sentence, the numbers behind; on results of every kind."""

import itertools
import math

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim import mechanisms
from sim.cost.profile import device_gpu, load_profile
from sim.cost.record import Record
from sim.explain import explain
from sim.mechanisms.attention import reference
from sim.report import calibration, step, validation
from sim.report import mechanisms as drawn
from sim.report import run as services
from sim.report.look import Chart, legend_rows, log_ticks, short
from sim.report.run import Shown, charts
from sim.report.terms import TERMS, meaning
from sim.result import Result
from sim.scenario.loading import parse
from sim.scenario.schema import Experts

CHAT = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 50}}
duration_s: 60
objectives: {ttft_p99_s: 2.0, tpot_p99_s: 0.05}
"""


@pytest.fixture(scope="module")
def result() -> Result:
    return sim.simulate(parse(CHAT).scenario)


@pytest.fixture(scope="module")
def shown(result) -> Shown:
    return services.shown("chat", result)


def sound(chart: Chart) -> None:
    """What every chart must have."""
    assert chart.title and chart.says.endswith(".")
    assert set(chart.terms) <= set(TERMS)
    assert len(chart.figure.data) and len(chart.table)
    for axis in (*chart.figure.select_xaxes(), *chart.figure.select_yaxes()):
        held = [v for t in chart.figure.data for v in (getattr(t, axis.plotly_name[0]) or ())]
        numbers = any(isinstance(v, int | float) for v in held)
        assert axis.title.text or not numbers, f"{chart.key}: an axis of numbers without name and unit"
    go.Figure(chart.figure).to_json()


def test_charts_of_a_service_without_and_with_a_simulation(shown: Shown) -> None:
    estimated = charts([Shown("chat", shown.scenario, shown.state)])
    assert "latency" not in estimated
    simulated = charts([shown])
    assert {"throughput", "prices", "latency", "timeline", "memory", "provenance"} <= set(simulated)
    for chart in (*estimated.values(), *simulated.values()):
        sound(chart)


def test_the_charts_show_the_run_s_own_numbers(shown: Shown) -> None:
    assert shown.run is not None
    run = shown.run.json()
    found = charts([shown])
    ttft, tpot = (run["latency"][key] for key in ("ttft_s", "tpot_s"))
    first, second = (trace for trace in found["latency"].figure.data if trace.type == "bar")
    assert list(first.y) == [ttft["p50"], ttft["p90"], ttft["p99"]]
    assert list(second.y) == pytest.approx([1e3 * tpot[p] for p in ("p50", "p90", "p99")])
    prices = found["prices"].table
    mine = prices[prices.name == "chat"].set_index("sold")["USD per million tokens"]
    assert mine["output"] == run["cost"]["usd_per_million"]["output"]
    assert mine["input, cache miss"] == run["cost"]["usd_per_million"]["input_cache_miss"]
    star = next(t for t in found["throughput"].figure.data if t.name == "chat, simulation")
    assert star.y[0] == run["throughput"]["output_tokens_per_s_per_gpu"]
    assert star.x[0] == pytest.approx(1 / tpot["mean"])


def test_an_unstable_run_still_draws() -> None:
    flood = parse(CHAT.replace("rate_per_s: 2", "rate_per_s: 400")).scenario
    result = sim.simulate(flood)
    assert not result.json()["stable"]
    for chart in charts([services.shown("flood", result)]).values():
        assert chart.title


def test_two_services_side_by_side(shown: Shown) -> None:
    other = Shown("other", shown.scenario, shown.state)
    found = charts([shown, other])
    assert "timeline" not in found and "memory" not in found
    assert {"chat", "other"} <= {trace.name for trace in found["throughput"].figure.data}


def test_a_service_has_one_colour_on_all_charts(shown: Shown) -> None:
    """Also where only the second one was simulated."""
    found = charts([Shown("estimated", shown.scenario, shown.state), shown])
    curve = next(trace for trace in found["throughput"].figure.data if trace.name == "chat")
    bars = next(trace for trace in found["latency"].figure.data if trace.name == "chat")
    assert bars.marker.color == curve.line.color


def test_mechanism_charts() -> None:
    scenario, models = reference(), ("deepseek-v3.1", "deepseek-v3.2")
    for phase, batch in (("decode", 64), ("prefill", 4096)):
        cost = mechanisms.cost_by_position(models, phase, (0, 8192, 131072), batch)
        sound(drawn.position_chart(cost, mechanisms.published_cost(), phase))
        sound(drawn.parts_chart(mechanisms.attention_parts(scenario, models, phase, (1024, 8192), batch)))
    sound(drawn.cache_chart(mechanisms.cache_bytes()))
    experts = Experts(popularity_sigma=1.0, redundant=32, staleness_rho=0.9)
    sound(drawn.imbalance_chart(mechanisms.expert_imbalance("deepseek-v3.2", 32, 8, experts, (1, 64))))
    sound(drawn.nodes_chart(mechanisms.nodes_touched("deepseek-v3.2", 8, (8, 16), 4)))
    sound(drawn.speculation_chart(mechanisms.speculation_gain(scenario, (1, 2), (1, 64), 4096)))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("by", ["bound", "priced_by", "group"])
def test_the_waterfall_adds_up_to_the_step(phase: str, by: str) -> None:
    explained = explain(parse(CHAT).scenario, phase, 64, 4096).json()
    chart = step.waterfall_chart(explained, by)
    sound(chart)
    sound(step.shares_chart(explained))
    bars = [(trace.base[0], trace.x[0]) for trace in chart.figure.data if trace.base is not None]
    # What is hidden or waited for below 0.4% of the step has no bar of its own.
    assert sum(length for _, length in bars) == pytest.approx(1e3 * explained["step_s"], rel=0.008)
    for (start, length), (follows, _) in itertools.pairwise(bars):
        assert follows == pytest.approx(start + length)


def cases(**changed: object) -> dict[str, object]:
    case = {"id": "a", "metric": "tpot", "published": 0.02, "simulated": 0.03, "error": 0.5, "band": None,
            "split": "train", "layout": "a", "point": "1024/1024 conc 8", "gpu": "h200_sxm", "engine": "sglang",
            "precision": "fp8"}  # fmt: skip
    return {"cases": [{**case, **changed}]}


def test_validation_charts_and_scores() -> None:
    table = validation.cases_table(cases())
    assert table.loc[0, ["gpu", "engine", "precision"]].tolist() == ["h200_sxm", "sglang", "fp8"]
    sound(validation.scatter_chart(table, "tpot", "engine"))
    sound(validation.error_chart(table, "tpot"))
    errors = pd.DataFrame({"metric": ["m"] * 3, "error": [-0.3, 0.1, 0.2]})
    score = validation.score_table(errors, ["metric"]).iloc[0]
    assert (score.cases, score["median error"], score.bias) == (3, 0.2, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [[], {}, {"cases": 3}, {"cases": [1]}, {"cases": [{"id": "a"}]}, {"cases": [], "columns": {"a": 1}}],
)
def test_what_is_no_validation_is_refused(wrong: object) -> None:
    with pytest.raises(validation.NotAValidation, match="validate --json"):
        validation.cases_table(wrong)


def test_held_out_values_are_told_first_and_never_pooled() -> None:
    """Errors 10% and 20% held out, 1% fitted on, 50% in no half: medians 15%, 1%, 50%."""
    rows = [("test", 1.1), ("train", 1.01), ("test", 0.8), (None, 1.5)]
    data = [
        {
            "id": str(i),
            "metric": "tpot",
            "published": 1.0,
            "simulated": s,
            "error": s - 1,
            "split": split,
            "layout": "a",
        }
        for i, (split, s) in enumerate(rows)
    ]
    table = validation.cases_table({"cases": data, "columns": {"a": {"model": "deepseek-v3.2"}}})
    held_out, fitted, neither = validation.headline(table, "tpot").split("  \n")
    assert held_out.startswith(
        "**2** published values of *TPOT, s* for deepseek-v3.2, held out from every fit"
    )
    assert "within **15.0%**" in held_out and "-5.0%" in held_out
    assert "constants were fitted on" in fitted and "within **1.0%**" in fitted
    assert "nobody says" in neither and "within **50.0%**" in neither
    alone = validation.headline(table[table.split == "train"], "tpot")
    assert "**1** published value of" in alone and "fitted on" in alone


def test_validation_cases_may_lack_values_and_layouts() -> None:
    for odd in ({"simulated": None, "error": None}, {"layout": None}, {"layout": "?"}, {"published": 0.0}):
        table = validation.cases_table(cases(**odd))
        validation.scatter_chart(table, "tpot", "gpu")
        validation.error_chart(table, "tpot")
    assert validation.cases_table({"cases": []}).empty


def test_calibration_charts_of_compute_memory_and_link() -> None:
    profile = load_profile("h200_sxm/sglang")
    for kernel in ("gemm", "dsa_decode_block", "index_topk", "dispatch"):
        for table in profile.tables(kernel)[:1]:
            measured = calibration.points_table(table, profile)
            sound(calibration.fit_chart(measured))
            if (measured[calibration.RATE] > 0).any():
                sound(calibration.roofline_chart(measured, device_gpu(profile), table.variant.dtype))
            sound(calibration.bandwidth_chart(measured))
    sound(calibration.held_out_chart(calibration.held_out_table(profile)))


def test_a_record_of_the_profile_itself_has_no_error() -> None:
    profile = load_profile("h200_sxm/sglang")
    table = profile.tables("gemm")[0]
    shape = {axis: float(values[0]) for axis, values in table.columns.items()}
    record = Record("gemm", shape, table.variant.dtype, table.seconds[0] * 1e6)
    row = calibration.records_table([record], profile).iloc[0]
    assert row.error == pytest.approx(0, abs=1e-6)
    assert row.how == "measured"
    strange = Record("gemm", {"m": 8.0}, table.variant.dtype, 5.0)
    failed = Record("gemm", shape, table.variant.dtype, None, ok=False)
    assert calibration.records_table([strange, failed], profile).how.tolist() == [""]


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20))
def test_logarithmic_ticks_are_few_and_near_the_data(values: list[float]) -> None:
    ticks = log_ticks(values)
    assert 1 <= len(ticks) <= 12
    assert ticks == sorted(ticks)
    for tick in ticks:
        power = math.floor(math.log10(tick) + 1e-9)
        assert round(tick / 10.0**power, 1) in (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8)


def test_an_axis_of_less_than_a_decade_still_has_its_ticks() -> None:
    assert log_ticks([15_760, 24_526]) == pytest.approx([14e3, 16e3, 18e3, 20e3, 25e3])
    assert log_ticks([11.0, 40.0]) == pytest.approx([10, 12, 14, 16, 18, 20, 25, 30, 40])


def test_a_legend_has_one_row_where_it_fits_and_columns_else() -> None:
    assert legend_rows(["measured", "analytic"], 330) == 1
    assert legend_rows(["a" * 20] * 5, 330) == 3  # two columns of 162 pixels
    assert legend_rows(["a" * 60] * 2, 330) == 2
    assert legend_rows([], 330) == 1


def test_the_error_chart_says_what_its_frame_leaves_out() -> None:
    cases = [
        {"id": str(i), "metric": "tpot", "published": 1.0, "simulated": 1 + error, "error": error,
         "layout": "h200 sglang fp8 TP8"}
        for i, error in enumerate([0.1] * 200 + [5.0])
    ]  # fmt: skip
    chart = validation.error_chart(validation.cases_table({"cases": cases}), "tpot")
    assert "1 of 201" in chart.says
    assert chart.figure.layout.yaxis.range[1] == pytest.approx(11.5)  # 10% and some room


def test_numbers_on_axes_are_short() -> None:
    assert [short(v) for v in (0.05, 3, 20_000, 1.5e6, 2e9)] == ["0.05", "3", "20k", "1.5M", "2G"]


@pytest.mark.parametrize(
    ("heading", "term"),
    [
        ("TTFT p99, s", "TTFT"),
        ("TPOT, ms", "TPOT"),
        ("goodput, requests/s", "goodput"),
        ("input, cache miss, USD/M", "cache miss"),
        ("output, USD/M", "price of output"),
        ("output tokens/s per GPU", "throughput"),
        ("price tier", "price tier"),
        ("from", "estimate"),
    ],
)
def test_headings_are_explained(heading: str, term: str) -> None:
    assert meaning(heading) == TERMS[term]


def test_other_words_are_not_explained() -> None:
    assert meaning("GPUs") is None and meaning("") is None


def test_every_term_is_a_sentence() -> None:
    for word, said in TERMS.items():
        assert said.endswith("."), word


def test_what_many_cases_share_is_told_once() -> None:
    table = pd.DataFrame({"case": ["A", "B", "A", "C"], "why so wide": ["x", "y", "x", ""]})
    told = validation.band_reasons(table, "why so wide")
    assert told.to_dict("list") == {"why so wide": ["x", "y"], "cases": ["A", "B"]}
