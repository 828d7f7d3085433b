"""`tokenworks dashboard`: serves the app on this machine."""

import os
import signal
import sys
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Annotated

import typer

APP = Path(__file__).parent / "app.py"
LOCAL = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches: pages then answer to these names alone, so that no other site can have its
name lead here and read them (DNS rebinding)."""


def command(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="default: 8501, or the next free one")
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; the default serves this machine only")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="open a browser where there is one")] = True,
) -> None:
    """Explore scenarios in the browser: compare, what-if, mechanisms, one step, calibration, validation."""
    # Imported here, so that no other command pays for it; the pages' data too, so that the first page need not.
    from streamlit.web import cli  # noqa: PLC0415

    from dashboard.data.services import warm_up  # noqa: PLC0415

    Thread(target=warm_up, daemon=True).start()
    if current_thread() is main_thread() and hasattr(signal, "SIGHUP"):
        # A terminal that closes ends the server as Ctrl-C does: with its simulations and their files.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    flags = [f"--server.address={host}"]
    if host not in LOCAL:  # whoever opens it to others is found under names that only they know
        flags.append("--server.allowedHosts=*")
    if port is not None:
        flags.append(f"--server.port={port}")
    if not browser:
        flags.append("--server.headless=true")
    sys.exit(cli.main(["run", str(APP), *flags], prog_name="tokenworks dashboard", standalone_mode=False))
