"""`tokenworks calibrate step`: logs and traces of a real engine -> a profile of whole steps."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar, get_args

import typer
import yaml
from rich.console import Console
from rich.table import Table as RichTable

from calibrate.show import wide_console
from calibrate.step.timed import Beside, NoSteps
from sim import catalog
from sim.catalog.profiles import HEADER
from sim.cost.whole_steps import SECTION, SOURCE, WholeSteps
from sim.saving import whole_folder
from sim.scenario.errors import brief
from sim.scenario.schema import Precision
from sim.scenario.spelling import CHECKPOINT, with_formats

# ruff: noqa: PLC0415 (scipy takes half a second to import)

Number = TypeVar("Number", int, float)
DEPTHS: Final = 2
"""Models of different depth that tell what a layer costs."""


def step(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Step logs of SGLang or vLLM, Kineto traces (.json, .json.gz), SQLite exports of nsys."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the profile.")] = Path("steps"),
    model: Annotated[
        str, typer.Option(help="Model that ran; a catalog name or a config.json.")
    ] = "deepseek-v3.2",
    gpu: Annotated[str, typer.Option(help="GPU that it ran on.")] = "h200_sxm",
    engine: Annotated[str, typer.Option(help="Engine that ran it.")] = "sglang",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the service.")] = 8,
    tp: Annotated[int, typer.Option(min=1, help="GPUs of an attention-DP rank.")] = 8,
    ep: Annotated[int, typer.Option(min=1, help="GPUs that the routed experts are spread over.")] = 1,
    draft_tokens: Annotated[int, typer.Option(min=0, help="Draft tokens per sequence and step.")] = 0,
    weights: Annotated[
        str, typer.Option(help="Format of the weights, as in a scenario; checkpoint: as published.")
    ] = CHECKPOINT,
    kv_cache: Annotated[
        str, typer.Option(help="Format of the KV cache, as in a scenario.")
    ] = Precision().kv_cache,
    layers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Layers of the model: of all files, or of each: --layers 4 A --layers 8 B."),
    ] = None,
    context: Annotated[
        list[float] | None,
        typer.Option(
            min=1,
            help="KV tokens of decoding sequences on average, where files do not tell them; of all files or of each.",
        ),
    ] = None,
    cached: Annotated[
        list[float] | None,
        typer.Option(min=0, help="KV tokens before each prompt's new ones (default 0), likewise."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Last line of stdout: the profile's steps.")
    ] = False,
) -> None:
    """Read whole steps from logs and traces of a real engine, fit their time against batch, tokens and context, and
    write the profile that a scenario names. Two depths of a model with dummy weights stand for the whole."""
    from calibrate.step.fitting import families_of, fit_steps
    from calibrate.step.reading import read_steps

    try:
        device, shapes = catalog.gpu(gpu), catalog.model(model)
        served_by, formats = catalog.engine(engine).name, _formats(model, weights, kv_cache)
        depths = _depths(files, layers, shapes)
        _check_layout(gpus, tp, ep)
        contexts, prefixes = _each("context", context, files), _each("cached", cached, files)
        steps = [
            replace(one, layers=depth)
            for path, depth, said, before in zip(files, depths, contexts, prefixes, strict=True)
            for one in read_steps(path, Beside(said, before or 0.0))
        ]
        whole = len({*depths}) == 1 and depths[0] == shapes.layers
        deep = shapes.layers if whole or len({*depths}) >= DEPTHS else depths[0]
        fitted = WholeSteps(
            device.name,
            served_by,
            shapes.name,
            formats.weights,
            formats.kv_cache,
            gpus,
            tp,
            ep,
            draft_tokens,
            deep,
            tuple(sorted({*depths})),
            _read(files, depths, shapes),
            fit_steps(steps, shapes, gpus // tp, 1 + draft_tokens, deep),
            families_of(steps),
        )
        _save(fitted, files, out)
    except (NoSteps, catalog.UnknownName, catalog.ConfigError, OSError) as error:
        _refuse(error)
    _tell(fitted, shapes, out, as_json)


def _save(fitted: WholeSteps, files: list[Path], out: Path) -> None:
    """The profile, a header without tables. Raises OSError."""
    header = {
        "gpu": fitted.gpu,
        "engine": fitted.engine,
        "attribution": {"source": SOURCE, "files": [path.name for path in files]},
        SECTION: fitted.json(),
        "tables": [],
    }
    with whole_folder(out, last=HEADER, ours=("*.parquet", "fit.json")) as folder:
        text = yaml.safe_dump(header, sort_keys=False, width=110)
        (folder / HEADER).write_text(text, encoding="utf-8")


def _tell(fitted: WholeSteps, model: catalog.Model, out: Path, as_json: bool) -> None:
    """The fit as tables, whether it is of the whole model, and where it lies."""
    console = wide_console(stderr=as_json)
    for table in tables(fitted):
        console.print(table)
    if fitted.layers != model.layers:
        few = (
            f"These are steps of {fitted.layers} layers; {model.name} has {model.layers}, and a scenario needs all. A "
            "second depth tells what a layer costs: --layers N FILE --layers M FILE."
        )
        console.print(few, markup=False, soft_wrap=True)
    console.print(f"Profile: {out / HEADER}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"profile": str(out / HEADER), "steps": fitted.json()}))


def _depths(files: list[Path], layers: list[int] | None, model: catalog.Model) -> list[int]:
    """Layers of the model in each file. Raises NoSteps."""
    depths = [depth or model.layers for depth in _each("layers", layers, files)]
    if len({*depths}) > 1 and min(depths) <= model.dense_layers:
        raise NoSteps(
            f"--layers {min(depths)}: expected more than the {model.dense_layers} dense layers that {model.name} "
            "begins with, so that the depths differ in its usual layers alone"
        )
    return depths


def _each(option: str, values: list[Number] | None, files: list[Path]) -> Sequence[Number | None]:
    """An option's value for each file: one for all, or as many as there are. Raises NoSteps."""
    if not values:
        return [None] * len(files)
    if len(values) not in (1, len(files)):
        raise NoSteps(f"--{option}: expected one, or one for each of {len(files)} files; got {len(values)}")
    return values * (len(files) // len(values))


def _formats(model: str, weights: str, kv_cache: str) -> Precision:
    """What a scenario has with these formats. Raises NoSteps."""
    for key, given in (("weights", weights), ("kv_cache", kv_cache)):
        if given not in (known := get_args(Precision.model_fields[key].annotation)):
            raise NoSteps(f"--{key.replace('_', '-')} {given}: expected one of {', '.join(known)}")
    return Precision(**with_formats(model, {"weights": weights, "kv_cache": kv_cache}))


def _check_layout(gpus: int, tp: int, ep: int) -> None:
    if gpus % tp or gpus % ep:
        raise NoSteps(f"--gpus {gpus}: expected a multiple of --tp {tp} and of --ep {ep}")


def _read(files: list[Path], depths: list[int], model: catalog.Model) -> str:
    """What was read, for people."""
    if {*depths} == {model.layers}:
        return ", ".join(path.name for path in files)
    return ", ".join(f"{path.name} of {depth} layers" for path, depth in zip(files, depths, strict=True))


def tables(steps: WholeSteps) -> list[RichTable]:
    """What was fitted, and where the kernels' time goes."""
    title = f"Whole steps of {steps.model}, {steps.layers} layers"
    fitted = RichTable(title=title, title_justify="left", box=None)
    for column in (
        "phase",
        "steps",
        "loads",
        "tokens per rank",
        "context",
        "error of a load from the others",
    ):
        fitted.add_column(column, justify="left" if column == "phase" else "right")
    for phase, fit in steps.phases.items():
        ends = [f"{least:,.0f} to {most:,.0f}" for least, most in (fit.tokens, fit.context)]
        error = f"{fit.error['median']:.1%} / {fit.error['p90']:.1%} (p90)" if fit.error else "too few loads"
        fitted.add_row(phase, f"{fit.steps:,}", f"{fit.loads:,}", *ends, error)
    found = [fitted]
    for phase, families in steps.families.items():
        table = RichTable(
            title=f"{phase} steps of {max(steps.depths)} layers, by family", title_justify="left", box=None
        )
        for column in ("family", "ms", "share"):
            table.add_column(column, justify="left" if column == "family" else "right")
        for family, seconds in families.items():
            table.add_row(family, f"{seconds * 1e3:.3f}", f"{seconds / sum(families.values()):.1%}")
        found.append(table)
    return found


def _refuse(error: Exception) -> NoReturn:
    Console(stderr=True).print(brief(str(error)), style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2) from error
