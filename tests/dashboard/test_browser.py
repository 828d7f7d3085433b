"""The dashboard in a real browser, as a user meets it."""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser

PAGES = {
    "": "Compare",
    "what_if": "What if",
    "capacity": "Capacity",
    "mechanisms": "Mechanisms",
    "step": "Step",
    "calibration": "Calibration",
    "validation": "Validation",
}
LONG_MS = 120_000
expect.set_options(timeout=LONG_MS)  # a busy machine is slow, not wrong
FOLD = 600
"""Pixels from the top at which a laptop of 1280 x 800 still shows a figure."""


def ready(page) -> None:
    """Until the script has run to its end."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def drawn(page) -> None:
    """Until the first figure is on the page."""
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()


def give(page, file: Path) -> None:
    """Choose a file in the page's uploader, which loses one that comes while it draws itself anew: until it has it, at
    last in a fresh page."""
    for _ in range(4):
        ready(page)
        page.locator("input[type=file]").set_input_files(file)
        try:
            page.get_by_test_id("stFileUploader").get_by_text(file.name).first.wait_for(timeout=30_000)
            return
        except playwright.TimeoutError:
            page.reload()
    raise AssertionError(f"the uploader never took {file.name}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_shows_something_at_first_sight(open_page, address: str, dark: bool) -> None:
    page = open_page("/", dark)
    for path, title in PAGES.items():
        page.goto(f"{address}/{path}")
        ready(page)
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        if path not in ("validation", "capacity"):  # what they show is uploaded, or asked for
            drawn(page)
            first = page.get_by_test_id("stPlotlyChart").first.bounding_box()
            assert first["y"] < FOLD, f"{title}: the first figure is below what a laptop shows"
        background = page.get_by_test_id("stApp").evaluate("e => getComputedStyle(e).backgroundColor")
        shade = sum(map(int, re.findall(r"\d+", background)[:3]))
        assert (shade < 200) == dark


def test_a_second_window_shows_words_and_then_figures(open_page) -> None:
    """Of a server that is up. What it took is printed (`-s`), and judged by nobody: the machine is shared."""
    ready(open_page("/"))
    began = time.perf_counter()
    page = open_page("/")
    ready(page)
    words_s = time.perf_counter() - began
    drawn(page)
    print(f"\nwords and table {words_s:.2f} s, first figure {time.perf_counter() - began:.2f} s")
    assert page.locator(".js-plotly-plot").count()


def test_the_pages_lead_to_one_another(open_page) -> None:
    page = open_page("/")
    ready(page)
    for title in PAGES.values():
        page.get_by_role("link", name=title, exact=True).first.click()
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        ready(page)


def test_every_term_is_explained_on_hover(open_page) -> None:
    page = open_page("/what_if")
    ready(page)
    page.get_by_test_id("stMetric").filter(has_text="TTFT").get_by_test_id("stTooltipIcon").hover()
    expect(page.get_by_test_id("stTooltipContent")).to_contain_text("Time to first token")


def test_what_if_from_a_slider_to_the_same_numbers_on_the_command_line(open_page, tmp_path: Path) -> None:
    page = open_page("/what_if?i=500&o=100")
    ready(page)
    values = page.get_by_test_id("stMetricValue")
    before = values.all_inner_texts()

    slider = page.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"r=7\b"))
    expect(values).not_to_have_text(before)
    ready(page)

    page.get_by_role("button", name="Pin", exact=True).click()
    expect(page).to_have_url(re.compile("base="))
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"r=10\b"))
    ready(page)
    expect(page.get_by_test_id("stMetricDelta").first).to_contain_text("-30.0%")  # 7 / 10 of the price

    page.get_by_role("button", name="Simulate").click()
    heading = page.get_by_role("heading", name="Estimate and simulation")
    expect(heading).to_be_visible()
    ready(page)

    with page.expect_download() as download:
        page.get_by_role("button", name="YAML").click()
    scenario = tmp_path / "scenario.yaml"
    download.value.save_as(scenario)
    with page.expect_download() as download:
        page.locator(".st-key-csv-estimate-simulation").get_by_role("button").click()
    shown = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    names, _, simulation = csv.reader(shown)
    simulated = dict(zip(names, simulation, strict=True))
    run = subprocess.run(
        [sys.executable, "-m", "sim.cli", "run", str(scenario), "--json", "--quiet"],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    result = json.loads(run.stdout.splitlines()[-1])
    assert float(simulated["blended, USD/M"]) == result["cost"]["usd_per_million"]["blended"]
    assert float(simulated["TTFT p99, s"]) == result["latency"]["ttft_s"]["p99"]
    assert float(simulated["output tokens/s per GPU"]) == result["throughput"]["output_tokens_per_s_per_gpu"]

    second = open_page("/" + page.url.split("/", 3)[3])
    ready(second)
    for part in ("stMetricValue", "stMetricDelta"):
        expect(second.get_by_test_id(part)).to_have_text(page.get_by_test_id(part).all_inner_texts())
    expect(second.get_by_role("heading", name="Estimate and simulation")).to_be_visible()


def test_a_simulation_can_be_cancelled(open_page) -> None:
    page = open_page("/what_if?r=1000.0&sw=32&k=joint&o=1000")
    ready(page)
    page.get_by_role("button", name="Simulate").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("cancelled")).to_be_visible()
    ready(page)
    expect(page.get_by_role("button", name="Simulate")).to_be_enabled()


def test_a_plan_shows_its_progress_and_can_be_cancelled(open_page) -> None:
    page = open_page("/capacity")
    ready(page)
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_text(re.compile(r"Plan: [\d,]+ of [\d,]+ requests"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("cancelled")).to_be_visible()
    ready(page)
    expect(page.get_by_role("button", name="Plan", exact=True)).to_be_enabled()


BROKEN = {
    "words.yaml": (b"just words", "expected a section"),
    "list.yaml": (b"model: [deepseek", "list.yaml:1"),
    "binary.yaml": (b"\x89PNG\r\n\0\0", "binary"),
    "laughs.yaml": (b"a: &a [x, x]\nb: [*a, *a]\n", "anchors and aliases"),
    "tight.yaml": (
        b"model: deepseek-v3.2\ngpu: h100_sxm\ndeployment: {serve: {gpus: 8, ep: 8}}\n"
        b"workload: {trace: azure-code}\n",
        "does not fit",
    ),
    "large.yaml": (b"# " + b"x" * 400_000, "larger than 256 KiB"),
    "huge.yaml": (b"x" * 2_000_000, "1.0MB or smaller"),
}


def test_broken_uploads_are_refused_and_the_page_goes_on(open_page, tmp_path: Path) -> None:
    page = open_page("/")
    ready(page)
    for name, (content, says) in BROKEN.items():
        file = tmp_path / name
        file.write_bytes(content)
        give(page, file)
        expect(page.get_by_text(says).first).to_be_visible()
        ready(page)
        drawn(page)


def test_an_uploaded_scenario_is_compared(open_page, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "model: deepseek-v3.1\ngpu: h200_sxm\ndeployment: {serve: {gpus: 8, ep: 8}}\n"
        "workload: {arrivals: {poisson: {rate_per_s: 1}}, lengths: {input: {constant: 500}, output: {constant: 50}}}\n"
        "duration_s: 60\n",
        encoding="utf-8",
    )
    page = open_page("/")
    ready(page)
    give(page, file)
    expect(page.get_by_text("Added as")).to_be_visible()
    name = page.get_by_text("Added as").locator("strong").inner_text()
    other = open_page(f"/?cs={name.replace(' ', '%20')}")
    ready(other)
    drawn(other)
    expect(other.get_by_role("button", name=f"{name} (YAML)")).to_be_visible()
    other.get_by_role("button", name="Simulate").click()
    expect(other.get_by_role("button", name="Report (HTML)")).to_be_enabled()
    with other.expect_download() as download:
        other.get_by_role("button", name="Report (HTML)").click()
    assert "Price per million tokens" in Path(download.value.path()).read_text(encoding="utf-8")


def test_the_html_report_draws_without_a_server(open_page, chromium, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "model: deepseek-v3.2\ngpu: h200_sxm\nprofile: analytic\ndeployment: {serve: {gpus: 8, ep: 8}}\n"
        "workload: {arrivals: {poisson: {rate_per_s: 1}}, lengths: {input: {constant: 500}, output: {constant: 50}}}\n"
        "duration_s: 60\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sim.cli", "run", str(file), "--out", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((out / "report.html").as_uri())
    expect(page.locator("#chart-prices .main-svg").first).to_be_visible()
    assert page.locator(".js-plotly-plot").count() >= 5
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
