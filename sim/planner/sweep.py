"""Runs the points of a sweep, one row each, so that a sweep that was stopped goes on where it was.

    points -> key of each (what it would run) -> those that the journal lacks, run -> journal -> Parquet

The journal is JSON Lines, one finished point a line, appended as they come: a kill loses the points in flight, no more.
The Parquet table comes at the end, as there is no half of one; what there is so far stands beside it until then.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sim.parallel import completed, on_ray
from sim.planner.points import Point, Sweep
from sim.saving import whole_file
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import to_yaml
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.steady import steady

if TYPE_CHECKING:
    import pandas as pd

TABLE: Final = "sweep.parquet"
JOURNAL: Final = "points.jsonl"
SO_FAR: Final = "sweep-so-far.parquet"
"""The table while some points are still to be done: a kill leaves no half of one in the place of a whole one."""
ROWS_PER_TABLE: Final = 25
"""Points after which it is written again."""
WALL: Final = "wall_s"
BASE: Final = "base"
"""Of the table's `attrs`, which its file keeps: the scenario that every point starts from, as YAML."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a worker is sent."""

    scenario: Scenario
    seed: int


def run_sweep(
    sweep: Sweep,
    folder: Path,
    seed: int = 0,
    workers: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "pd.DataFrame":
    """Every point of the sweep, those that `folder` holds already taken from there; writes TABLE and JOURNAL.

    One row a point, in order: `point`, the overrides by key, `seed`, `error` (None where it ran), and every figure of
    the run's JSON under its dotted path, but for those of the estimate (`capacity`, `limited_by`). A point that cannot
    run is a row with its error. `ray`: address of a cluster.
    The rows do not depend on who computed them, but for WALL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / JOURNAL
    known = dict(_read(journal))
    rows: dict[int, Row] = {}
    jobs: list[tuple[Point, str, Job]] = []
    for point in sweep.points:
        try:
            job = Job(sweep.scenario(point), seed)
        except ScenarioError as error:
            rows[point.number] = {"error": _said(error)}
            continue
        key = _key(job)
        if key in known:
            rows[point.number] = known[key]
        else:
            jobs.append((point, key, job))

    def write(name: str) -> "pd.DataFrame":
        found = _frame(sweep.points, rows, seed)
        found.attrs[BASE] = to_yaml(sweep.base.scenario)
        with whole_file(folder / name) as file:
            found.to_parquet(file, index=False)
        return found

    inputs = [job for _, _, job in jobs]
    done = on_ray(figures, inputs, ray, _lost) if ray else completed(figures, inputs, workers, _lost)
    with journal.open("a", encoding="utf-8") as file:
        for index, row in done:
            point, key, _ = jobs[index]
            rows[point.number] = row
            file.write(json.dumps({"key": key, "row": row}) + "\n")
            file.flush()
            if len(rows) % ROWS_PER_TABLE == 0:
                write(SO_FAR)
            if progress:
                progress(len(rows), len(sweep.points))
    found = write(TABLE)
    (folder / SO_FAR).unlink(missing_ok=True)
    return found


def figures(job: Job) -> Row:
    """The figures of one run by dotted path, or its `error`. Runs in a worker: nothing may escape."""
    try:
        result = simulate(job.scenario, job.seed)
        result.outlook_from(lambda: steady(job.scenario).outlook())
        data = result.json()
    except (DeploymentError, ScenarioError) as error:
        return {"error": _said(error)}
    except Exception as error:  # one point's fault must not end the others
        return {"error": f"{type(error).__name__}: {error}"}
    return dict(_flat({key: value for key, value in data.items() if key not in ("scenario", "seed")}))


def _lost(job: Job) -> Row:
    return {"error": "its worker died, twice: out of memory?"}


def _said(error: Exception) -> str:
    return "; ".join(line for line in str(error).splitlines() if "|" not in line)


def _flat(data: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{under}{key}.")
        elif isinstance(value, list):
            yield f"{under}{key}", "\n".join(map(str, value))
        else:
            yield f"{under}{key}", value


def _key(job: Job) -> str:
    """Tells a run from every other one: version, seed, scenario, and the files that it names as they are now."""
    data = job.scenario.model_dump(mode="json")
    files = [
        (text, Path(text).stat()) for text in _texts(data) if text.startswith("/") and Path(text).is_file()
    ]
    stamps = [(text, stat.st_size, stat.st_mtime_ns) for text, stat in files]
    said = json.dumps([metadata.version("tokenworks"), job.seed, data, stamps], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping | list):
        for child in data.values() if isinstance(data, Mapping) else data:
            yield from _texts(child)


def _read(journal: Path) -> Iterator[tuple[str, Row]]:
    """Finished points by key. A torn last line is a point that was not finished; it is cut off."""
    if not journal.is_file():
        return
    whole = 0
    with journal.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
                found = entry["key"], entry["row"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            yield found
    os.truncate(journal, whole)


def _frame(points: Sequence[Point], rows: Mapping[int, Row], seed: int) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - a third of a second that only tables need

    there = [point for point in points if point.number in rows]
    names = list(dict.fromkeys(key for point in points for key in point.overrides))
    columns: dict[str, Any] = {"point": [point.number for point in there]}
    for name in names:
        columns[name] = _column([point.values.get(name) for point in there])
    columns["seed"] = [seed] * len(there)
    found = [rows[point.number] for point in there]
    columns["error"] = pd.Series([row.get("error") for row in found], dtype=object)
    figure_names = dict.fromkeys(key for row in found for key in row if key != "error")
    for name in figure_names:
        columns[name if name not in columns else f"run.{name}"] = [row.get(name) for row in found]
    return pd.DataFrame(columns)


def _column(values: list[Any]) -> list[Any]:
    """The values of an override: numbers as numbers, all else as text, since a column has one type."""
    numbers = all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )
    return (
        values
        if numbers
        else [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    )
