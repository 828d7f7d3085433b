"""`tokenworks plan`: the cheapest deployment that keeps its promises."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.files import prepare, print_json, save, spare
from sim.cli.terminal import DID_NOT_HOLD, Screen

if TYPE_CHECKING:
    from sim.planner.plan import Plan

SCENARIO, ANSWER, CANDIDATES, REPORT, LAUNCH = (
    "scenario.yaml",
    "plan.json",
    "candidates.csv",
    "report.html",
    "launch.sh",
)


def plan(
    file: Annotated[
        Path, typer.Argument(help="scenario, objectives, search: YAML", metavar="PLAN.yaml", show_default=False)
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="override a key of the plan, such as search.max_gpus=64 or objectives.ttft_p99_s=1",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; default: one per core")] = None,
    seed: Annotated[int, typer.Option(min=0, help="all chance is drawn from it")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, metavar="DIR",
            help="folder for the winner's scenario, its launch commands, the answer (JSON, CSV) and a report (HTML)",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, no notes")] = False,
) -> None:  # fmt: skip
    """Find the cheapest deployment that keeps the objectives for a traffic, and say why the others lost."""
    from sim.cli import plan_tables
    from sim.planner.plan import plan
    from sim.planner.question import load_question

    screen = Screen(as_json, quiet)
    question = load_question(file, sets or ())
    if out:
        written = (out / name for name in (SCENARIO, ANSWER, CANDIDATES, REPORT, LAUNCH))
        spare(map(Path, question.loaded.sources), written)
        prepare(out)
    with screen.progress(file.stem) as tick:
        found = plan(question, seed, workers, tick)
    for note in found.data["notes"]:
        screen.note(note)
    if out:
        for note in _save(found, out):
            screen.note(note)
        screen.note(f"written to {out}")
    screen.show(plan_tables.answer(found.data))
    if as_json:
        print_json(found.data)
    if not (found.data["best"] and found.data["best"]["meets_objectives"]):
        raise typer.Exit(DID_NOT_HOLD)


def _save(found: "Plan", out: Path) -> list[str]:
    """The files of an answer; sentences about what could not be written."""
    import json

    import pandas as pd

    from sim.cli import plan_tables
    from sim.launch.write import write_launch
    from sim.report.plan import page
    from sim.scenario.errors import DeploymentError
    from sim.scenario.loading import to_yaml

    notes: list[str] = []

    def write(folder: Path) -> None:
        (folder / ANSWER).write_text(
            json.dumps(found.data, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        pd.DataFrame(plan_tables.rows(found.data)).to_csv(folder / CANDIDATES, index=False)
        (folder / REPORT).write_text(page(found.data), encoding="utf-8")
        if found.scenario is None:
            return
        (folder / SCENARIO).write_text(found.heading + to_yaml(found.scenario), encoding="utf-8")
        try:
            written = write_launch(found.scenario)
        except DeploymentError as error:
            notes.append(f"no launch commands: {error}")
            return
        (folder / LAUNCH).write_text(written.text, encoding="utf-8")
        notes.extend(f"cannot be said in a command of {written.engine}: {said}" for said in written.cannot)

    save(out, write, last=ANSWER, ours=(SCENARIO, LAUNCH))
    return notes
