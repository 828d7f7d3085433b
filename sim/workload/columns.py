"""Which columns of a file of requests hold what: people call them by many names (`traces.yaml`)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.workload.table import FileTable, fault

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


def columns_of(table: FileTable) -> Columns:
    """What the columns of a table are.

    Raises ScenarioError, with names that would do, where it has no column for the tokens of prompts or answers.
    """
    found = {role: _named(table, role) for role in ("input", "output", "blocks")}
    prompt, answer = found["input"], found["output"]
    if prompt is None or answer is None:
        wanted = " and ".join(
            f"{what} ({', '.join(index()['columns'][role]['names'][:5])}, ...)"
            for role, what in (("input", "prompt tokens"), ("output", "generated tokens"))
            if found[role] is None
        )
        got = ", ".join(table.columns)
        got = got if len(got) <= SHOWN else f"{got[:SHOWN]}..."
        said = f"expected a column of {wanted}; got {got}"
        if table.columns.keys() >= RESULT:
            said = "this is a benchmark's result, not a trace: `tokenworks validate --bench` reads it"
        raise fault(table.file, table.source, 1, 1, said)
    arrival, unit = _arrival(table)
    return Columns(prompt, answer, arrival, found["blocks"], unit)


def _named(table: FileTable, role: str) -> str | None:
    """The file's column of a role: that of the first name that it has."""
    names = [_plain(name) for name in index()["columns"][role]["names"]]
    known = [name for name in table.columns if _plain(name) in names]
    return min(known, key=lambda name: names.index(_plain(name)), default=None)


def _arrival(table: FileTable) -> tuple[str | None, str | None]:
    """The file's column of arrivals, and the unit that its name tells."""
    names = [_plain(name) for name in index()["columns"]["arrival"]["names"]]
    known = {name: (base, unit) for name in table.columns for base, unit in _split(name) if base in names}
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


@cache
def _plain(name: str) -> str:
    """A name without what people write differently: `Request tokens`, `request_tokens`, `RequestTokens`."""
    return re.sub(r"[\s_.\-]", "", name).lower()
