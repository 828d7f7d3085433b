"""One server and one browser for all browser tests; a page that reports errors and requests that leave the machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDTH, HEIGHT = 1280, 800


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """AppTest leaves its page as `__main__`; whatever spawns a process later would run that page in it.

    Not by way of `monkeypatch`, which a test may undo before its page is run for the last time.
    """
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session", autouse=True)
def packages_read_once() -> Iterator[None]:
    """AppTest reads the metadata of every installed package for each page that it opens: 0.1 s, and always the same.

    A release of Streamlit that does this elsewhere is as slow as it is; nothing depends on it.
    """
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError, AttributeError):
            from streamlit.components.v2 import manifest_scanner  # noqa: PLC0415 - a second, and private

            patch.setattr(
                manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests)
            )
        yield


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app as `tokenworks dashboard` serves it, started from a folder that is not the repository's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("dashboard")
    log = folder / "server.log"
    command = [sys.executable, "-m", "sim.cli", "dashboard", "--port", str(port), "--no-browser"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(1200):
        try:
            if urllib.request.urlopen(url, timeout=1).status == 200:
                return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail(f"the server did not come up:\n{log.read_text(encoding='utf-8', errors='replace')}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A headless browser. Without one the tests are skipped with the reason; where CI promises one, they fail."""
    if CHROMIUM is None:
        reason = "no chromium: apt-get install chromium, or name one in CHROMIUM"
        if os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - needed only here

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def contexts(chromium) -> dict[bool, object]:
    """A light and a dark browser profile (dark or not -> profile), so that pages after the first load from a cache."""
    size = {"width": WIDTH, "height": HEIGHT}
    return {
        dark: chromium.new_context(
            viewport=size, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        for dark in (False, True)
    }


@pytest.fixture
def open_page(contexts, address: str):
    """Opens paths of the app in windows of their own; afterwards none may have failed or looked elsewhere."""
    problems: list[str] = []
    pages = []
    own = (address, address.replace("http", "ws"), "data:", "blob:")

    def asked(path: str, url: str) -> None:
        if not url.startswith(own):
            problems.append(f"{path}: asks {url}")

    def opened(path: str = "/", dark: bool = False):
        page = contexts[dark].new_page()
        pages.append(page)
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: problems.append(f"{path}: {error}"))
        page.on("request", lambda request: asked(path, request.url))
        page.on("websocket", lambda socket: asked(path, socket.url))
        page.goto(address + path)
        return page

    yield opened
    for page in pages:
        page.close()
    assert problems == []
