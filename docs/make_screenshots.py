"""Renews docs/screenshots: `python docs/make_screenshots.py`. Needs Chromium, and Playwright (the `dev` extra)."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

import sim

FOLDER = Path(__file__).parent / "screenshots"
WIDTH, HEIGHT = 1280, 800
LONGEST = 3200
"""Pixels: tables that go on below are like what is seen of them."""
COLOURS = 256
"""Enough for flat areas and smooth letters; a third of the bytes."""
LONG_MS = 300_000


@dataclass(frozen=True)
class Shot:
    """One picture: a page by its address, as a laptop first shows it or the whole of it."""

    path: str
    whole: bool = True
    clicks: str = ""
    """A button that starts a child process, whose end the picture waits for."""
    dark: bool = False
    gives: str = ""
    """A scenario of GIVEN that is uploaded before, and chosen."""


TWICE_THE_LOAD = "/what_if?r=10.0&o=500&base=default"
SHOTS = {
    "compare": Shot("/", clicks="Simulate"),
    "what-if": Shot(TWICE_THE_LOAD, whole=False),
    "what-if-dark": Shot(TWICE_THE_LOAD, whole=False, dark=True),
    "what-if-simulated": Shot(TWICE_THE_LOAD, clicks="Simulate"),
    "capacity": Shot("/capacity", clicks="Plan"),
    "capacity-day": Shot(
        "/capacity?cap_view=The+day+by+hour", clicks="Simulate the day", gives="a-small-day"
    ),
    "capacity-sweep": Shot("/capacity?cap_view=Sweep+results"),
    "mechanisms": Shot("/mechanisms"),
    "step": Shot("/step"),
    "calibration": Shot("/calibration"),
    "validation": Shot("/validation"),
}


GIVEN = {
    "a-small-day": """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {workers: 2, gpus: 8, tp: 8, max_batch_per_gpu: 1}}
workload:
  arrivals: {diurnal: {mean_rate_per_s: 1.2, curve: deepseek-24h}}
  lengths: {input: {lognormal: {mean: 1000, cv: 1.0}}, output: {lognormal: {mean: 250, cv: 0.8}}}
duration_s: 86400
objectives: {ttft_p99_s: 2.0, tpot_p99_s: 0.05}
autoscale: {pools: {serve: {min: 1, max: 6}}, target: 0.35}
failures: {per_gpu_hour: 0.004, spare_nodes: 1}
price:
  hours: [{from_hour: 0, usd_per_gpu_hour: 2.4}, {from_hour: 8, usd_per_gpu_hour: 4.0}]
"""
}
"""A tenth of the traffic of scenarios/day.yaml: a picture need not take minutes."""
SWEEP = f"""
base: {Path(__file__).parent.parent / "scenarios" / "chat.yaml"}
grid:
  gpu: [h200_sxm, b200_sxm]
  deployment.serve.max_batch_per_gpu: [8, 32]
  workload.arrivals.poisson.rate_per_s: [1, 2, 4, 8]
"""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The app's address while it runs, started in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sim.cli", "dashboard", "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit("the server did not come up")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def take(browser: Browser, address: str, shot: Shot, file: Path) -> None:
    """Open a page, wait until it is drawn, and save its picture."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if shot.dark else "light"
    )
    page.set_default_timeout(LONG_MS)
    chosen = _give(page, address, shot.gives) if shot.gives else ""
    page.goto(address + shot.path)
    if chosen:
        page.get_by_role("combobox").and_(page.get_by_label("Whose day")).click()
        page.get_by_role("option", name=chosen).click()
    _settle(page, figure=shot.clicks not in ("Plan", "Simulate the day"))
    if shot.clicks:
        page.get_by_role("button", name=shot.clicks, exact=True).click()
        expect(page.get_by_role("button", name="Cancel").first).to_be_visible()
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        _settle(page)
    if shot.whole:
        height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        page.set_viewport_size({"width": WIDTH, "height": min(height, LONGEST)})
    page.mouse.move(WIDTH - 1, HEIGHT - 1)
    page.wait_for_timeout(2000)  # transitions end
    picture: Image.Image = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    ).save(file, optimize=True)
    page.close()


def _give(page: Page, address: str, name: str) -> str:
    """Upload a scenario on Compare; under which name it can be picked."""
    page.goto(address)
    _settle(page)
    content = {"name": f"{name}.yaml", "mimeType": "application/yaml", "buffer": GIVEN[name].encode()}
    page.locator("input[type=file]").set_input_files(content)
    return page.get_by_text("Added as").locator("strong").inner_text()


def _settle(page: Page, figure: bool = True) -> None:
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    if figure:
        expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def main() -> None:
    """Take the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SHOTS)}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(exist_ok=True)
    expect.set_options(timeout=LONG_MS)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with TemporaryDirectory() as folder, server(Path(folder)) as address, sync_playwright() as playwright:
        if "capacity-sweep" in (given.names or SHOTS):
            (Path(folder) / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
            sim.sweep(Path(folder) / "sweep.yaml", out=Path(folder) / "out" / "sweep")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in given.names or SHOTS:
            take(browser, address, SHOTS[name], given.out / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
