"""`tokenworks dashboard`: what it starts."""

import re
import tomllib
from pathlib import Path

import pytest
from streamlit.web import cli
from typer.testing import CliRunner

from dashboard.data import services
from sim.cli import app

ROOT = Path(__file__).parents[2] / "dashboard"


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    calls: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda args, **_: calls.append(args) or 0)
    monkeypatch.setattr(services, "warm_up", lambda: None)
    result = CliRunner().invoke(app, ["dashboard", *arguments])
    assert result.exit_code == 0, result.output
    return calls[0]


def test_it_serves_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    run, script, *flags = started(monkeypatch)
    assert run == "run"
    assert Path(script) == ROOT / "app.py"
    assert flags == ["--server.address=127.0.0.1"]


def test_address_port_and_browser_are_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = started(monkeypatch, "--host", "0.0.0.0", "--port", "9000", "--no-browser")[2:]
    assert flags == [
        "--server.address=0.0.0.0", "--server.allowedHosts=*", "--server.port=9000", "--server.headless=true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:8501", "http://127.0.0.1:8501", True), ("localhost:8501", "http://localhost:8501", True),
        ("[::1]:8501", "http://[::1]:8501", True), ("127.0.0.1:8501", "http://evil.example", False),
        ("evil.example:8501", "http://evil.example:8501", False), ("evil.example:8501", None, False),
        (None, None, False),
    ],
)  # fmt: skip
def test_a_name_of_somebody_s_that_leads_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, host: str | None, origin: str | None, allowed: bool
) -> None:
    """DNS rebinding: a page of evil.example whose name suddenly means 127.0.0.1 has Origin and Host alike."""
    from streamlit.web.server.starlette import starlette_websocket as socket  # noqa: PLC0415

    options = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["server"]
    monkeypatch.setattr(
        socket.config, "get_option", lambda name: options.get(name.removeprefix("server."), True)
    )
    monkeypatch.setattr(socket, "is_url_from_allowed_origins", lambda url: "127.0.0.1" in url)
    assert socket._is_origin_allowed(origin, host) is allowed


def test_a_port_that_cannot_be_is_refused() -> None:
    assert CliRunner().invoke(app, ["dashboard", "--port", "99999"]).exit_code == 2


def test_nothing_is_reported_home() -> None:
    config = (ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    assert "gatherUsageStats = false" in config
    assert 'address = "127.0.0.1"' in config
    assert "http" not in config  # no font and no style from elsewhere


def test_every_page_has_its_picture() -> None:
    """`python docs/make_screenshots.py` takes them."""
    docs = ROOT.parent / "docs"
    text = (docs / "dashboard.md").read_text(encoding="utf-8")
    for view in (ROOT / "views").glob("[!_]*.py"):
        name = f"{view.stem.replace('_', '-')}.png"
        assert f"(screenshots/{name})" in text
        assert (docs / "screenshots" / name).stat().st_size < 200_000, name
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"docs/screenshots/[\w-]+\.png", readme)
    assert len(shown) == 2
    assert all((ROOT.parent / picture).is_file() for picture in shown)
