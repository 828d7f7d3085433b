"""The `tokenworks` command."""

import os
import sys

from sim.cli.commands import app
from sim.cli.terminal import PARENT_PIPE
from sim.parallel import end_with


def main() -> None:
    """The console script."""
    if os.environ.pop(PARENT_PIPE, None):
        end_with(lambda: os.read(sys.stdin.fileno(), 1))
    app()
