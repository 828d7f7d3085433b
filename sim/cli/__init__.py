"""The `tokenworks` command."""

from sim.cli.commands import app


def main() -> None:
    """The console script."""
    app()
