"""The HTML report: whole, alone, and with the numbers of the run."""

import base64
import gzip
import html
import json
import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.report import run as services
from sim.report.html import report, write_report
from sim.report.said import fills_first
from sim.result import Result
from sim.scenario.loading import parse

CHAT = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 50}}
duration_s: 60
"""


@pytest.fixture(scope="module")
def result() -> Result:
    return sim.simulate(parse(CHAT).scenario)


def body(page: str) -> str:
    """The page without plotly itself."""
    return page[page.index("<body>") :]


def test_the_report_shows_the_numbers_of_the_run(result, tmp_path: Path) -> None:
    write_report(result, tmp_path / "chat.html", "chat")
    page = (tmp_path / "chat.html").read_text(encoding="utf-8")
    run = result.json()
    assert f"${run['cost']['usd_per_million']['blended']:.3g} per million tokens" in page
    assert f"{run['latency']['ttft_s']['p99']:.4g}" in page
    assert "rent_3yr" in page and run["version"] in page
    assert "duration_s: 60" in page


def test_every_figure_of_the_report_is_that_of_the_json(tmp_path: Path) -> None:
    """What `run --out DIR` writes: the table of the page against run.json, figure by figure."""
    file = tmp_path / "chat.yaml"
    file.write_text(CHAT, encoding="utf-8")
    ran = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert ran.exit_code == 0, ran.output
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    table = body(page)[: body(page).index("</table>")]
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", table)]
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    usd, latency = run["cost"]["usd_per_million"], run["latency"]
    figures = {
        "GPUs": run["gpus"],
        "output tokens/s": run["throughput"]["output_tokens_per_s"],
        "output tokens/s per GPU": run["throughput"]["output_tokens_per_s_per_gpu"],
        "goodput, requests/s": run["goodput_requests_per_s"],
        "TTFT p50, s": latency["ttft_s"]["p50"],
        "TTFT p99, s": latency["ttft_s"]["p99"],
        "TTFT mean, queue, s": latency["ttft_breakdown"]["queue_s"],
        "TTFT mean, prefill, s": latency["ttft_breakdown"]["prefill_s"],
        "TTFT mean, KV transfer, s": latency["ttft_breakdown"]["transfer_s"],
        "TTFT mean, admission, s": latency["ttft_breakdown"]["admission_s"],
        "TTFT mean, first step, s": latency["ttft_breakdown"]["first_step_s"],
        "TPOT p50, ms": latency["tpot_s"]["p50"] * 1e3,
        "TPOT p99, ms": latency["tpot_s"]["p99"] * 1e3,
        "input, cache hit, USD/M": usd["input_cache_hit"],
        "input, cache miss, USD/M": usd["input_cache_miss"],
        "output, USD/M": usd["output"],
        "blended, USD/M": usd["blended"],
    }
    figures |= {
        "capacity, requests/s": run["capacity"]["requests_per_s"],
        "blended when full, USD/M": run["capacity"]["usd_per_million_blended"],
        "USD per hour": run["cost"]["usd_per_hour"],
    }
    for name, value in figures.items():
        if value is None:
            assert shown[name] == "-", name
        else:
            assert float(shown[name].replace(",", "")) == pytest.approx(value, rel=5e-4), name
    words = {
        "stable": "yes", "price tier": run["cost"]["tier"], "fills first": fills_first(run),
        "load": f"{run['capacity']['load']:.1%}", "overhead": f"{run['cost']['overhead_fraction']:.1%}",
    }  # fmt: skip
    assert {name: shown[name] for name in words} == words
    assert set(shown) == {*figures, *words}


def test_the_report_says_what_the_terminal_says(tmp_path: Path) -> None:
    """Kept and missed objectives, every note, what fills first, load, cost of an hour and overhead."""
    file = tmp_path / "chat.yaml"
    file.write_text(CHAT + "objectives: {ttft_p99_s: 0.001, tpot_p99_s: 5}\n", encoding="utf-8")
    ran = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    page = re.sub("<[^>]+>", "", body((tmp_path / "out" / "report.html").read_text(encoding="utf-8")))
    told = html.unescape(page)
    assert [(key, one["kept"]) for key, one in run["objectives"].items()] == [
        ("ttft_p99_s", False), ("tpot_p99_s", True),
    ]  # fmt: skip
    for text in ("objective TTFT p99 <= 1 ms: missed", "objective TPOT p99 <= 5 s: kept"):
        assert text in told
    assert "missed (" in ran.stdout and "kept (" in ran.stdout
    assert run["notes"] and all(note in told and note in ran.stderr for note in run["notes"])
    load, overhead = f"{run['capacity']['load']:.1%}", f"{run['cost']['overhead_fraction']:.1%} overhead"
    for text in (fills_first(run), load, overhead):
        assert text in told and text in ran.stdout, text
    assert f"${run['cost']['usd_per_hour']:.2f}" in ran.stdout and "USD per hour" in told


def test_the_report_draws_the_same_figures_as_the_dashboard(result) -> None:
    shown = services.shown("chat", result)
    page = report([shown])
    for key, chart in services.charts([shown]).items():
        drawn = re.search(rf'draw\("chart-{key}", (.*?)\)</script>', page, re.S)
        assert drawn, key
        expected = json.loads(chart.figure.to_json())["data"]
        assert json.loads(drawn[1])["data"] == expected, key


def test_the_page_is_small_and_the_same_every_time(result) -> None:
    """plotly.js alone is 4.8 MB: packed, a page stays below half of that, and two of one run are the same bytes."""
    page, again = (report([services.shown("chat", result)]) for _ in range(2))
    assert page == again and len(page.encode()) < 2.4e6
    packed = re.search(r'id="plotly">([^<]+)</script>', page)
    assert packed and gzip.decompress(base64.b64decode(packed[1])).decode() == get_plotlyjs()


def test_nothing_is_fetched_from_elsewhere(result) -> None:
    page = report([services.shown("chat", result)])
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=['\"](?!data:)", body(page))
    assert not re.search(r"<(script|link)[^>]+(src|href)=['\"](?!data:)", page[: page.index("<script>")])


def test_names_are_text_not_markup(result) -> None:
    page = report([services.shown("<script>alert(1)</script>", result)])
    assert "<script>alert(1)</script>" not in page


def test_several_runs_share_a_page(result, tmp_path: Path) -> None:
    write_report({"a": result, "b": result}, tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "a and b" in page
    assert body(page).count("Scenario of") == 2


def test_the_report_quotes_the_expected_error(result, tmp_path: Path) -> None:
    write_report(result, tmp_path / "run.html", "run")
    assert "Expected error: unknown" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_a_run_without_completed_requests_still_has_a_report(tmp_path: Path) -> None:
    result = sim.simulate(parse(CHAT, overrides=["workload.arrivals.poisson.rate_per_s=1e-6"]).scenario)
    assert result.json()["requests"]["completed"] == 0
    write_report(result, tmp_path / "none.html", "none")
    assert "no tokens served" in (tmp_path / "none.html").read_text(encoding="utf-8")
