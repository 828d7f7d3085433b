"""Which columns of a file of requests hold what: people call them by many names (`traces.yaml`)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.scenario.errors import DeploymentError, KeyPath, Problem, did_you_mean
from sim.scenario.workload import TraceColumns
from sim.workload.likely import maybe_tokens
from sim.workload.table import FileTable, fault

TRACE_KEY: Final[KeyPath] = ("workload", "trace")
COLUMNS_KEY: Final[KeyPath] = ("workload", "columns")
FOLDER: Final = Path(__file__).parent / "traces"
RESULT: Final = {"completed", "duration"}
"""Keys of a benchmark's result, of which `sim.validation.bench` has the readers."""
SHOWN: Final = 120
"""Characters of a file's own names that an error repeats."""


@cache
def index() -> dict[str, Any]:
    """`traces.yaml`: the names of columns, how times are told, and the traces that ship."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / "traces.yaml").read_text(encoding="utf-8"))
    return content


@dataclass(frozen=True)
class Columns:
    """The names, as the file writes them, of the columns of requests."""

    input: str
    output: str
    arrival: str | None = None
    blocks: str | None = None
    unit: str | None = None
    """Of the arrivals, where the name tells it: s, ms, us or ns."""

    def json(self) -> dict[str, str | None]:
        """What is read from where."""
        return {"arrival": self.arrival, "input": self.input, "output": self.output, "blocks": self.blocks}


def columns_of(table: FileTable, asked: TraceColumns | None = None) -> Columns:
    """What the columns of a table are: as asked for, else by their names.

    Raises ScenarioError, with names that would do, where it has no column for the tokens of prompts or answers;
    DeploymentError where it has not one that is asked for.
    """
    given = _given(table, asked)
    others = [name for name in table.columns if name not in given.values()]
    found = {role: given.get(role) or _named(others, role) for role in ("input", "output", "blocks")}
    arrival, unit = _arrival(others)
    if asked_for := given.get("arrival"):
        arrival, unit = asked_for, _ending(asked_for)
    prompt, answer = found["input"], found["output"]
    if prompt is None or answer is None:
        wanted = " and ".join(
            f"{what} ({', '.join(index()['columns'][role]['names'][:5])}, ...)"
            for role, what in (("input", "prompt tokens"), ("output", "generated tokens"))
            if found[role] is None
        )
        missing = [role for role in ("input", "output") if found[role] is None]
        maybe = maybe_tokens(table, {arrival, *found.values()})
        said = f"expected a column of {wanted}; got {_listed(table)}"
        if len(maybe) >= len(missing):
            sure = len(maybe) == len(missing)
            pairs = ", ".join(
                f"{role}: {name if sure else '...'}" for role, name in zip(missing, maybe, strict=False)
            )
            said += f"; {' and '.join(maybe)} may be it: `columns: {{{pairs}}}` says so"
        if table.columns.keys() >= RESULT:
            said = "this is a benchmark's result, not a trace: `tokenworks validate --bench` reads it"
        raise fault(table.file, table.source, 1, 1, said)
    return Columns(prompt, answer, arrival, found["blocks"], unit)


def _given(table: FileTable, asked: TraceColumns | None) -> dict[str, str]:
    """Role -> column, as asked for."""
    given = asked.model_dump(exclude_none=True) if asked else {}
    problems = [
        Problem(
            (*COLUMNS_KEY, role),
            f"'{table.file}' has no column '{name}', but {_listed(table)}{did_you_mean(name, table.columns)}",
        )
        for role, name in given.items()
        if name not in table.columns
    ]
    if not problems and len(set(given.values())) < len(given):
        problems = [Problem(COLUMNS_KEY, "one column can be one of these only")]
    if problems:
        raise DeploymentError(problems)
    return given


def _listed(table: FileTable) -> str:
    """Its columns, for an error."""
    got = ", ".join(table.columns)
    return got if len(got) <= SHOWN else f"{got[:SHOWN]}..."


def _named(columns: list[str], role: str) -> str | None:
    """The column of a role: that of the first name that is there."""
    names = [_plain(name) for name in index()["columns"][role]["names"]]
    known = [name for name in columns if _plain(name) in names]
    return min(known, key=lambda name: names.index(_plain(name)), default=None)


def _arrival(columns: list[str]) -> tuple[str | None, str | None]:
    """The column of arrivals, and the unit that its name tells."""
    about = index()["columns"]["arrival"]
    names = [_plain(name) for name in about["names"]]
    names += [f"{before}{name}" for before in about["before"] for name in names]
    known = {name: (base, unit) for name in columns for base, unit in _split(name) if base in names}
    if not known:
        return None, None
    # A name that tells its unit comes before one that does not.
    name = min(known, key=lambda name: (known[name][1] is None, names.index(known[name][0])))
    return name, known[name][1]


def _split(name: str) -> Iterator[tuple[str, str | None]]:
    """The ways to read a name: as it is, and as one with an ending that tells a unit; the last one that fits counts."""
    yield _plain(name), None
    for unit, endings in index()["columns"]["arrival"]["units"].items():
        for ending in endings:
            base = name[: -len(ending)]
            apart = len(ending) > 1 or not base[-1:].isalnum()  # `ts` is a name, `t_s` has a unit
            if base and apart and _plain(name[-len(ending) :]) == ending:
                yield _plain(base), unit


def _ending(name: str) -> str | None:
    """The unit that a name of any kind tells, by an ending that stands apart: `when_ms`, not `items`."""
    apart = re.split(r"[\s_.\-]", name.lower())
    units = index()["columns"]["arrival"]["units"].items()
    return next((unit for unit, endings in units if len(apart) > 1 and apart[-1] in endings), None)


@cache
def _plain(name: str) -> str:
    """A name without what people write differently: `Request tokens`, `request_tokens`, `RequestTokens`."""
    return re.sub(r"[\s_.\-]", "", name).lower()
