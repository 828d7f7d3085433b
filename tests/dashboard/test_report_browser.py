"""A report as a user opens it: a file from a folder, in a browser without a network."""

from pathlib import Path

import pytest

import sim
from sim.report.html import write_report
from sim.scenario.loading import parse

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser

CHAT = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 8}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 500}, output: {constant: 20}}
duration_s: 30
"""


@pytest.mark.parametrize("unpacks", [True, False])
def test_a_report_draws_its_figures_from_a_file_alone(chromium, tmp_path: Path, unpacks: bool) -> None:
    write_report(sim.simulate(parse(CHAT).scenario), tmp_path / "report.html", "chat")
    page = chromium.new_page(offline=True)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    if not unpacks:  # a browser of 2022
        page.add_init_script("delete window.DecompressionStream")
    page.goto((tmp_path / "report.html").as_uri())
    figures = page.locator("div.figure")
    assert figures.count() > 3
    if unpacks:
        playwright.expect(page.locator("div.figure .main-svg").first).to_be_visible(timeout=60_000)
        for i in range(figures.count()):
            playwright.expect(figures.nth(i).locator(".main-svg").first).to_be_visible(timeout=60_000)
    else:
        playwright.expect(figures.first).to_contain_text(
            "This browser cannot draw the figure", timeout=60_000
        )
        assert page.locator("div.figure + script + details table").count() == figures.count()
    page.close()
    assert wrong == []
