"""Subcommands of extras: found by entry point, and never able to break the others."""

import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sim.cli import app, group


class Distribution:
    """An installed distribution that offers one extra."""

    name = "tokenworks"

    @property
    def metadata(self) -> Any:
        class Metadata:
            def get_all(self, key: str) -> list[str] | None:
                return ["measure"] if key == "Provides-Extra" else None

        return Metadata()


class Entry:
    """An entry point that loads to a value, or raises it."""

    dist = Distribution()

    def __init__(self, name: str, loads_to: Any) -> None:
        self.name, self._loads_to = name, loads_to

    def load(self) -> Any:
        if isinstance(self._loads_to, Exception):
            raise self._loads_to
        return self._loads_to


def invoke(monkeypatch: pytest.MonkeyPatch, entries: list[Entry], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)
    group._extensions.cache_clear()
    result = CliRunner().invoke(app, arguments)
    group._extensions.cache_clear()
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def a_typer_app() -> typer.Typer:
    nested = typer.Typer()

    @nested.command()
    def fit() -> None:
        typer.echo("fitted")

    @nested.command()
    def late() -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    return nested


def a_function(port: int = 1) -> None:
    """Opens something."""
    typer.echo(f"port {port}")


def test_a_typer_app_and_a_plain_function_become_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("measure", a_typer_app()), Entry("open", a_function)]
    assert invoke(monkeypatch, entries, "measure", "fit") == (0, "fitted\n")
    assert invoke(monkeypatch, entries, "open", "--port", "7") == (0, "port 7\n")
    code, output = invoke(monkeypatch, entries, "--help")
    assert code == 0
    assert "Opens something." in output


@pytest.mark.parametrize(
    "broken", [ModuleNotFoundError("No module named 'torch'"), RuntimeError("odd"), typer.Typer()]
)
def test_a_broken_extra_says_what_to_install_and_breaks_nothing_else(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry("measure", broken)]
    code, output = invoke(monkeypatch, entries, "measure", "run", "--quick")
    assert code == 2
    assert "pip install 'tokenworks[measure]'" in output
    code, output = invoke(monkeypatch, entries, "--help")
    assert code == 0
    assert "Not available" in output
    assert "explain" in output


def test_what_an_extra_lacks_only_while_it_runs_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke(monkeypatch, [Entry("measure", a_typer_app())], "measure", "late")
    assert code == 2
    assert "pip install 'tokenworks[measure]' (No module named 'torch')" in output


def test_an_extra_cannot_take_the_place_of_our_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke(monkeypatch, [Entry("check", a_function)], "check", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml: no such file" in output


def test_help_loads_nothing_heavy() -> None:
    """`--help` and `check` answer at once: no module is loaded that only a command's work needs."""
    code = (
        "import sys; from sim.cli import app; app(['--help'], standalone_mode=False); "
        "print([m for m in ('numpy', 'pandas', 'pyarrow', 'scipy', 'simpy', 'torch', 'streamlit', 'plotly') "
        "if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "calibrate" in shown and "dashboard" in shown and "Not available" not in shown
    assert shown.splitlines()[-1] == "[]"
