"""The `tokenworks` command."""

import os
import sys

from sim.cli.commands import app
from sim.cli.terminal import PARENT_PIPE


def main() -> None:
    """The console script."""
    if os.environ.pop(PARENT_PIPE, None):
        from sim.parallel import end_with

        end_with(lambda: os.read(sys.stdin.fileno(), 1))
    app()
