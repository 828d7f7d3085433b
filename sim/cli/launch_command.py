"""`tokenworks launch`: launch commands of engines <-> scenarios."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.files import print_json
from sim.cli.terminal import Screen

app = typer.Typer(
    help="Read an engine's launch commands as a scenario, or write the commands that start one.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="one JSON object as the last line of stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no notes")]


class EngineName(StrEnum):
    """Engines that can be launched."""

    SGLANG = "sglang"
    VLLM = "vllm"
    TRTLLM = "trtllm"


@app.command()
def read(
    command: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND|FILE",
            help="one launch command, or a file with those of all pools; - is standard input",
            show_default=False,
        ),
    ],
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="the GPU it runs on, such as h200")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="nodes that there are")] = None,
    engine_version: Annotated[
        str | None, typer.Option(metavar="V", help="release whose defaults hold; default: the newest known")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Launch commands -> a scenario on stdout, each key with its flag; what is not modelled on stderr too."""
    from sim.launch.read import read_launch
    from sim.launch.source import text_of

    screen = Screen(as_json, quiet)
    text, name, folder = text_of(command)
    launch = read_launch(text, gpu, nodes, engine_version, name, folder)
    for note in launch.notes:
        screen.note(note)
    for told in launch.not_modelled:
        screen.note(f"not modelled: {told.flag}: {told.why}")
    screen.out.print(launch.text, end="", soft_wrap=True)
    if as_json:
        print_json(launch.json())


@app.command()
def write(
    scenario: Annotated[
        Path, typer.Argument(help="a scenario, YAML", metavar="SCENARIO.yaml", show_default=False)
    ],
    engine: Annotated[
        EngineName | None,
        typer.Option(help="whose commands; default: the scenario's engine", show_default=False),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as gpu=b200")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """A scenario -> the commands that start it, one per pool and node; what the engine cannot do on stderr."""
    from sim.cli.scenarios import deployed
    from sim.launch.write import write_launch

    screen = Screen(as_json, quiet)
    loaded, _ = deployed(scenario, sets)
    with loaded.locating():
        written = write_launch(loaded.scenario, engine.value if engine else None)
    for said in written.cannot:
        screen.note(f"cannot be said in a command of {written.engine}: {said}")
    screen.out.print(written.text, end="", soft_wrap=True)
    if as_json:
        print_json(written.json())
