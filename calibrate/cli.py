"""`tokenworks calibrate`: measure kernels, import tables, fit, show the error, predict blind shapes, compare profiles,
read steps, close the loop.

A subcommand is imported when it is named: `tokenworks --help` lists this group, and needs no pandas and no torch.
"""

from importlib import metadata
from typing import Any, Final

import typer
from typer.core import TyperGroup

from sim.cli.group import as_command

COMMANDS: Final = {
    "import": "calibrate.import_command:import_tables",
    "fit": "calibrate.fit_command:fit",
    "show": "calibrate.show_command:show",
    "diff": "calibrate.diff_command:diff",
    "run": "calibrate.run_command:run",
    "blind": "calibrate.blind_command:blind",
    "step": "calibrate.step_command:step",
    "loop": "calibrate.loop_command:loop",
}
"""Subcommand -> the function that is one."""


class _Commands(TyperGroup):
    """The subcommands by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All of them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of that name, imported now."""
        target = COMMANDS.get(cmd_name)
        return target and as_command(cmd_name, metadata.EntryPoint(cmd_name, target, "").load())


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Measure kernels, import foreign tables, fit, show the error."""
