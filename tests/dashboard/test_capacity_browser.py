"""The day by hour and sweep results in a real browser, light and dark: drawn, whole, and on their way to What-if."""

import re
from pathlib import Path

import pytest

import sim

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

from test_browser import drawn, give, ready  # noqa: E402 - which needs Playwright as well
from test_clipping import CUT, settled  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"]),
]

SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 16}}
workload:
  arrivals: {diurnal: {mean_rate_per_s: 0.3, curve: deepseek-24h}}
  lengths: {input: {constant: 300}, output: {constant: 8}}
duration_s: 9000
objectives: {ttft_p99_s: 0.2}
failures: {per_gpu_hour: 0.1, repair_h: 0.2}
"""
SWEEP = """
base: mine.yaml
grid: {deployment.serve.max_batch_per_gpu: [4, 8], workload.arrivals.diurnal.mean_rate_per_s: [0.2, 0.4]}
cases: [{gpu: h100_sxm, speculation.draft_tokens: 1}, {gpu: b200_sxm}]
"""


def whole(page) -> None:
    """With every table open, nothing is cut off."""
    page.evaluate("document.querySelectorAll('details:not([open]) > summary').forEach(head => head.click())")
    page.set_viewport_size({"width": 1280, "height": 3000})
    settled(page)
    assert page.evaluate(CUT) == []


def test_a_day_by_hour(open_page, address: str, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / f"{'dark' if dark else 'light'}-day.yaml"
    file.write_text(SCENARIO)
    page = open_page("/", dark)
    ready(page)
    give(page, file)
    name = page.get_by_text("Added as").locator("strong").inner_text()
    page.goto(f"{address}/capacity?cap_view=The+day+by+hour")
    ready(page)
    page.get_by_role("combobox", name=re.compile("Whose day")).click()
    page.get_by_role("option", name=name).click()
    ready(page)
    page.get_by_role("button", name="Simulate the day").click()
    drawn(page)
    ready(page)
    expect(page.get_by_test_id("stMetric").filter(has_text="Retried")).to_be_visible()
    expect(page.get_by_role("heading", name="By hour")).to_be_visible()
    whole(page)


def test_a_sweep_from_its_file_to_what_if(open_page, tmp_path: Path, dark: bool) -> None:
    (tmp_path / "mine.yaml").write_text(SCENARIO.replace("9000", "600"))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    sim.sweep(tmp_path / "sweep.yaml", out=tmp_path / "out")
    page = open_page("/capacity?cap_view=Sweep+results", dark)
    ready(page)
    give(page, tmp_path / "out" / "sweep.parquet")
    drawn(page)
    ready(page)
    assert page.locator(".js-plotly-plot").count() == 2
    expect(page.get_by_text("6 points, 1 failed")).to_be_visible()
    whole(page)
    link = page.get_by_role("link", name=re.compile("mean_rate_per_s 0.2"))
    other = open_page("/" + (link.get_attribute("href") or "").lstrip("/"), dark)
    ready(other)
    expect(other.get_by_role("spinbutton", name="Batch per GPU")).to_have_value("4")
