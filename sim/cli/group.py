"""The command group: our own subcommands, those of installed extras, and what happens on bad input."""

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, Final

import typer
from rich.markup import escape
from typer.core import TyperGroup

from sim.cli.terminal import BAD_INPUT, show_error
from sim.scenario.errors import DeploymentError, ScenarioError, brief

EXTENSIONS: Final = "tokenworks.commands"
"""Entry-point group through which other packages add subcommands: a typer app, or a plain function."""


class Commands(TyperGroup):
    """Our own commands and those of installed extras; bad input ends with exit code 2 and no traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours first, then the extras'."""
        own = super().list_commands(ctx)
        return [*own, *sorted(set(_extensions()) - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of ours, or an extra's, loaded only now."""
        own = super().get_command(ctx, cmd_name)
        entry = _extensions().get(cmd_name)
        return own if own or not entry else _extension(entry)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what is the user's to mend is said, not raised."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has gone, such as `| head`: typer ends quietly
        except (ScenarioError, DeploymentError) as error:
            message = str(error)
        except LookupError as error:
            from sim.catalog.facts import UnknownName

            if not isinstance(error, UnknownName):
                raise
            message = str(error)
        except OSError as error:
            message = brief(f"{error.filename or 'error'}: {error.strerror or error}")
        except MemoryError:
            message = "not enough memory for so many requests, workers or rows; make the workload or the pools smaller"
        except ModuleNotFoundError as error:
            entry = _extensions().get(ctx.invoked_subcommand or "")
            if entry is None:
                raise
            message = _hint(entry, error)
        show_error(message)
        raise typer.Exit(BAD_INPUT)


@cache
def _extensions() -> Mapping[str, metadata.EntryPoint]:
    """Commands that installed distributions add, by name."""
    return {entry.name: entry for entry in metadata.entry_points(group=EXTENSIONS)}


def _extension(entry: metadata.EntryPoint) -> Any:
    """An extra's command; where it cannot be loaded, one that says what to install."""
    try:
        command = as_command(entry.name, entry.load())
    except Exception as error:  # a broken extra must not break the rest, whatever is wrong with it
        command = as_command(entry.name, _unavailable(entry.name, _hint(entry, error)))
    command.name = entry.name
    return command


def as_command(name: str, loaded: Any) -> Any:
    """The command of a typer app, or of a plain function."""
    if not isinstance(loaded, typer.Typer):
        function, loaded = loaded, typer.Typer(add_completion=False)
        loaded.command(name)(function)
    return typer.main.get_command(loaded)


def _unavailable(name: str, hint: str) -> typer.Typer:
    """A command that takes any arguments and only says why it cannot do its work."""
    stand_in = typer.Typer(add_completion=False)

    @stand_in.command(
        name,
        help=f"Not available: {escape(hint)}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def say() -> None:
        show_error(hint)
        raise typer.Exit(BAD_INPUT)

    return stand_in


def _hint(entry: metadata.EntryPoint, error: Exception) -> str:
    """What to install for a command that lacks something."""
    extras = entry.dist.metadata.get_all("Provides-Extra") or [] if entry.dist else []
    if entry.dist and entry.name in extras:
        return f"`{entry.name}` needs an extra: pip install '{entry.dist.name}[{entry.name}]' ({error})"
    return f"`{entry.name}` cannot be loaded: {error}"
