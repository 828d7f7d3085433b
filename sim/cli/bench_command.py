"""`tokenworks validate --bench`: a user's own benchmark beside its simulation, and the anchor made from it."""

import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sim.cli.files import prepare, print_json, save, spare, writer
from sim.cli.terminal import BAD_INPUT, Screen, show_error
from sim.saving import write_whole
from sim.scenario.errors import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.scenario.anchor import AnchorFile
    from sim.scenario.loading import LoadedScenario

YAML: Final = (".yaml", ".yml")
RESULT: Final = "bench.json"


def validate_bench(
    files: Sequence[Path],
    deployment: str | None,
    sets: Sequence[str],
    gpu: str | None,
    anchor: Path | None,
    max_prompts: int,
    workers: int,
    seed: int,
    out: Path | None,
    screen: Screen,
    as_json: bool,
) -> None:
    """Read the files, repeat their runs, show both; with `anchor`, make one and show what it changes."""
    from sim.cli import bench_tables
    from sim.validation.anchors import NoAnchor, make_anchor
    from sim.validation.bench.compare import compare
    from sim.validation.bench.files import read_benches
    from sim.validation.bench.run import BenchError

    read = [*files, *([Path(deployment)] if deployment else [])]
    spare(read, [*([anchor] if anchor else []), *([out / RESULT] if out else [])])
    if out:
        prepare(out)
    loaded = _deployment(deployment, sets, gpu, screen) if deployment else None
    if loaded is None and gpu:
        show_error("--gpu is of a launch command: --scenario 'vllm serve ...' --gpu h200")
        raise typer.Exit(BAD_INPUT)
    with _traces(out) as folder, _located(loaded):
        try:
            runs = read_benches(files)
            with screen.progress("benchmark") as tick:
                found = compare(runs, loaded.scenario if loaded else None, folder, max_prompts, seed, tick)
            made = None
            if anchor is not None:
                with screen.progress("anchor") as tick:
                    made = make_anchor([one.benchmark(seed) for one in found.runs], workers, tick)
        except (BenchError, NoAnchor) as error:
            show_error(brief(str(error)))
            raise typer.Exit(BAD_INPUT) from None
        screen.show(bench_tables.comparison(found))
        data = found.json()
        if made is not None and anchor is not None:
            data["anchor"] = made.form.model_dump(mode="json")
            _write(anchor, made.form)
            screen.show(bench_tables.anchored(made.form, anchor))
        if out:
            save(out, writer(RESULT, data))
    if as_json:
        print_json(data)


def _deployment(text: str, sets: Sequence[str], gpu: str | None, screen: Screen) -> "LoadedScenario":
    """The scenario of a file, or of a launch command, in which the workload is only a placeholder; `sets` on top."""
    from sim.scenario.loading import load, parse

    if Path(text).suffix in YAML:
        return load(text, sets)
    from sim.launch.read import read_launch
    from sim.launch.source import text_of

    command, name, folder = text_of(text)
    launch = read_launch(command, gpu, name=name, folder=folder)
    for told in launch.not_modelled:
        screen.note(f"not modelled: {told.flag}: {told.why}")
    return parse(launch.text, name, sets)


@contextmanager
def _traces(out: Path | None) -> "Iterator[Path]":
    """Where the requests of the runs are kept as traces: beside the result, or nowhere for long."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def _located(loaded: "LoadedScenario | None") -> "Iterator[None]":
    """Inside, problems of the deployment are shown where the scenario writes them."""
    if loaded is None:
        yield
        return
    with loaded.locating():
        yield


def _write(path: Path, form: "AnchorFile") -> None:
    """The anchor's file, whole or not at all."""
    from sim.scenario.anchor import written

    write_whole(path, written(form))
