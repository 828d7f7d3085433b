"""The `tokenworks` command. Thin: it reads options, calls the room that does the work, and shows what comes back.

Everything heavy is imported inside the commands, so that `--help` and `check` answer at once. Other packages add
subcommands through the entry-point group `tokenworks.commands`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sim.cli.catalog_command import show_catalog
from sim.cli.files import COMPARISON, PAGE, RESULT, TABLES, page, print_json, save, writer
from sim.cli.group import Commands
from sim.cli.launch_command import app as launch
from sim.cli.options import options
from sim.cli.plan_command import plan
from sim.cli.scenarios import deployed, note_profile, pool, profiles, public_prices, simulated
from sim.cli.sweep_command import sweep
from sim.cli.terminal import DID_NOT_HOLD, Screen, show_error
from sim.cli.trace_command import show_trace
from sim.cli.validate_command import validate
from sim.scenario.errors import DeploymentError, ScenarioError

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario.schema import Scenario

Phase = Literal["prefill", "decode"]
"""As `sim.model.layout` has it, which takes a while to import."""

app = typer.Typer(
    cls=Commands,
    help="Describe a deployment in YAML; get its throughput, latency and price per million tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="a scenario, YAML", metavar="SCENARIO.yaml", show_default=False)]
Files = Annotated[
    list[Path], typer.Argument(help="scenarios, YAML", metavar="A.yaml B.yaml ...", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as gpu=b200")
]
Seed = Annotated[int, typer.Option(min=0, help="all chance is drawn from it")]
Out = Annotated[
    Path | None, typer.Option(file_okay=False, metavar="DIR", help="folder for the files of the result")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, no notes")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="show the version and leave")] = False,
) -> None:
    if version:
        typer.echo(metadata.version("tokenworks"))
        raise typer.Exit


@app.command()
def run(
    scenario: File,
    sets: Set = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Simulate one scenario: throughput, latency, price."""
    from sim.cli import tables

    screen = Screen(as_json, quiet)
    results = simulated([scenario], sets, seed, out, screen)
    [(name, result)] = results.items()
    data = result.json()
    if out:  # before anything is shown: whoever reads may leave
        save(out, result.save, last=RESULT, ours=(PAGE, *TABLES))
        save(out, page(results))
        screen.note(f"written to {out}")
    screen.show(tables.runs({name: data}, public_prices(results)))
    _finish(results, data, as_json)


@app.command()
def compare(
    scenarios: Files,
    sets: Set = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Simulate several scenarios side by side, with ratios to the first and public API prices beside."""
    from sim.cli import tables
    from sim.scenario.difference import against_first

    screen = Screen(as_json, quiet)
    results = simulated(scenarios, sets, seed, out, screen, several=True)
    data = {name: result.json() for name, result in results.items()}
    api_prices = public_prices(results)
    ran = {name: result.record.scenario for name, result in results.items()}
    for sentence in against_first(ran):
        screen.note(sentence)
    runs = [{"name": name, **one} for name, one in data.items()]
    answer = {"runs": runs, "api_prices": api_prices, "differences": _differences(ran)}
    if out:
        for name, result in results.items():
            save(out / name, result.save, last=RESULT, ours=TABLES)
        save(out, writer(COMPARISON, answer))
        save(out, page(results))
        screen.note(f"written to {out}")
    screen.show(tables.runs(data, api_prices))
    _finish(results, answer, as_json)


@app.command()
def check(
    scenario: File,
    sets: Set = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Validate only: the form, the layout, the memory, the files of workload and experts."""
    from sim.catalog.profiles import is_shipped
    from sim.cli import step_tables
    from sim.cluster.life_plan import operated
    from sim.cluster.plan import cluster_plan
    from sim.deployment.notes import scenario_notes
    from sim.deployment.room import check_room, check_warmup
    from sim.deployment.understood import understood
    from sim.step.experts import check_recordings
    from sim.workload import incoming

    screen = Screen(as_json, quiet)
    try:
        loaded, deployment = deployed(scenario, sets)
        with loaded.locating():
            own = deployment.profile is not None and not is_shipped(deployment.profile)
            if own or any(plan.layout.moe_backend for plan in deployment.pools.values()):
                from sim.step.pricing import check_backends  # reads the profile, which takes a while

                check_backends(deployment)
            check_recordings(deployment)
            with screen.progress("check") as tick:
                stream = incoming(loaded.scenario, seed, counting=tick)
            operated(cluster_plan(deployment, seed), loaded.scenario, deployment, seed)
            check_room(deployment, stream.least_tokens)
            check_warmup(loaded.scenario, stream.last_arrival_s)
    except ScenarioError as error:
        if as_json:
            print_json({"ok": False, "problems": [problem.json() for problem in error.problems]})
        raise
    notes = [*scenario_notes(loaded.scenario), *stream.notes]
    for note in notes:
        screen.note(note)
    pools = {role: pool(plan) for role, plan in deployment.pools.items()}
    found = {
        "ok": True,
        "problems": [],
        "requests": len(stream),
        "gpus": deployment.gpus,
        "model": understood(loaded.scenario).json(),
        "pools": pools,
        "notes": notes,
    }
    screen.show(step_tables.checked(str(scenario), found))
    _answer("check.json", found, out, as_json)


@app.command()
def explain(
    scenario: File,
    phase: Annotated[Phase | None, typer.Option(help="default: decode")] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="sequences per attention-DP rank (decode), or new tokens (prefill)"),
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=0, help="KV tokens that each sequence already has")
    ] = None,
    sets: Set = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Price one step, operation by operation, whether its KV cache fits or not."""
    from sim.cli import step_tables
    from sim.deployment.notes import scenario_notes
    from sim.deployment.plan import deploy
    from sim.explain import CONTEXT
    from sim.explain import explain as price_step
    from sim.scenario.loading import load

    screen = Screen(as_json, quiet)
    loaded = load(scenario, sets or ())
    with loaded.locating(), options({CONTEXT: "--context"}):
        explained = price_step(loaded.scenario, phase, batch, context)
    data, deployment = explained.json(), explained.deployment
    note_profile(scenario.stem, deployment, screen)
    data["notes"] = [*deployment.model.notes, *scenario_notes(loaded.scenario)]
    for note in data["notes"]:
        screen.note(note)
    try:
        deploy(loaded.scenario, profiles(loaded.scenario))
    except DeploymentError as error:
        screen.note(f"priced all the same, but cannot run:\n{loaded.located(error.problems)}")
    screen.show(step_tables.explanation(data, screen.out.width))
    _answer("explain.json", data, out, as_json)


@app.command()
def bench(seed: Seed = 0, out: Out = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """The simulator's own speed: 100,000 requests on 64 GPUs, beside the bare SimPy loop."""
    from sim.bench import bench as measure
    from sim.cli import step_tables

    screen = Screen(as_json, quiet)
    with screen.progress("bench") as tick:
        data = measure(seed, tick)
    screen.show(step_tables.benchmark(data))
    _answer("bench.json", data, out, as_json)


app.command()(sweep)
app.command()(plan)
app.command()(validate)
app.command("catalog")(show_catalog)
app.command("trace")(show_trace)
app.add_typer(launch, name="launch")


# --- what the commands share -------------------------------------------------------------------------------------


def _differences(scenarios: "Mapping[str, Scenario]") -> list[dict[str, Any]]:
    """What every scenario has other than the first one, by key."""
    from sim.scenario.difference import differences

    (first, base), *others = scenarios.items()
    told = []
    for name, scenario in others:
        found = differences(base, scenario)
        work, rest = ([asdict(one) for one in found if one.of_the_work is kind] for kind in (True, False))
        told.append({"name": name, "against": first, "workload": work, "other": rest})
    return told


def _answer(name: str, data: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """The JSON of a command, to its file and to stdout."""
    if out:
        save(out, writer(name, data))
    if as_json:
        print_json(data)


def _finish(results: "Mapping[str, Result]", data: dict[str, Any], as_json: bool) -> None:
    """The JSON on stdout; exit code 1 where a run broke an invariant."""
    if as_json:
        print_json(data)
    broken = [f"{name}: {sentence}" for name, r in results.items() for sentence in r.record.invariants]
    if broken:
        show_error("An invariant of the simulation did not hold; please report it:\n" + "\n".join(broken))
        raise typer.Exit(DID_NOT_HOLD)
