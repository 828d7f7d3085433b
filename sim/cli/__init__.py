"""The `tokenworks` command."""

import io
import os
import sys

from sim.cli.commands import app
from sim.cli.terminal import PARENT_PIPE


def main() -> None:
    """The console script."""
    _open_streams()
    if os.environ.pop(PARENT_PIPE, None):
        from sim.parallel import end_with

        end_with(lambda: os.read(sys.stdin.fileno(), 1))
    app()


def _open_streams() -> None:
    """Let a command that is started without stdin, stdout or stderr (`>&-`) have them all, so that no file of a result
    takes their place; and let what no text can hold, such as a file's name of odd bytes, be written as an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name) or open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 - for good
        setattr(sys, name, stream)
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
