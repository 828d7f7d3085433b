"""Writes what is shipped of validating everything that is published here.

    python -m sim.validation.digest                             # everything: ten minutes of processor time
    python -m sim.validation.digest published wide-ep P0559     # these anew, the others as they are

`digest.json` is the JSON of `tokenworks validate`, small enough to ship and one case a line: rounded, what the cases
of a layout have in common told once, what was skipped counted by reason, without scores by layout and the compositions
of steps.
`catalog/validated.csv` holds the errors by deployment, from which a run takes its expected error.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import sim.catalog
from sim.catalog.validated import FILE as VALIDATED
from sim.catalog.validated import Served, Validated, written
from sim.deployment.plan import resolve
from sim.result.expected_error import METRICS, served, service
from sim.validation.case import Case
from sim.validation.errors import Score, grouped, score
from sim.validation.points import points, setup
from sim.validation.rows import Row
from sim.validation.scenarios import scenario_of
from sim.validation.services import entries, service_scenario
from sim.validation.skips import general
from sim.validation.table import SHIPPED, Validation, shipped_rows, validate
from sim.validation.worst import worst

FILE: Final = Path(__file__).with_name("digest.json")
DIGITS: Final = 4
"""Significant digits of every number."""
NAMES: Final = {
    "tpot": "tpot",
    "ttft": "ttft",
    "total_tput_per_gpu": "throughput",
    "prefill_tput_per_node": "throughput",
    "decode_tput_per_node": "throughput",
}
"""Metric of a case -> metric of a run. A published step has no TPOT of its own: its throughput says the same."""
PAIRS: Final = ("band", "interval", "simulated_range")
"""Columns that hold two numbers."""
EMPTY: Final = {"model": "", "gpu": "", "engine": "", "precision": "", "phase": "", "point": ""}
"""What a column holds where it is left out."""
SHARED: Final = ("model", "gpu", "engine", "release", "precision", "phase", "split")
"""Columns that the cases of a layout mostly have in common."""


def brief(found: Validation) -> dict[str, Any]:
    """The result without what takes most of its room."""
    data: dict[str, Any] = rounded(found.json())
    del data["compositions"], data["layouts"]
    data["cases"], data["columns"] = _shared(data["cases"])
    data["skipped"] = dict(Counter(general(one["reason"]) for one in data["skipped"]))
    data["worst"] = rounded([one.json() for one in worst(found.cases)])
    return data


def renewed(old: Mapping[str, Any], found: Validation) -> dict[str, Any]:
    """The shipped result with some cases simulated anew."""
    anew = {case.id for case in found.cases}
    kept = [case for case in cases_of(old) if case.id not in anew]
    later = [case for case in kept if case.phase == "service" and not case.band]  # rows of tables come last
    first = [case for case in kept if case not in later]
    whole = replace(found, cases=[*first, *found.cases, *later])
    kept_as_told = {name: old[name] for name in ("ignored_columns", "max_prompts", "seed")}
    data = {**brief(whole), **kept_as_told, **_counts(old, found)}
    # What is kept was rounded before its error could be taken.
    errors = {_key(one): one["error"] for one in old["cases"] if one["id"] not in anew}
    for one in data["cases"]:
        one["error"] = errors.get(_key(one), one["error"])
    return data


def _counts(old: Mapping[str, Any], found: Validation) -> dict[str, Any]:
    """Rows that were simulated and left out: those of the shipped result, and of a table of which it knew nothing."""
    counts = {name: Counter(old[name]) for name in ("rows", "skipped")}
    anew = {case.id for case in found.cases}
    if anew and not anew & {case["id"] for case in old["cases"]}:
        counts["rows"].update(found.json()["rows"])
        counts["skipped"].update(general(reason) for reason in found.skipped.values())
    return {name: dict(counted) for name, counted in counts.items()}


def _key(case: Mapping[str, Any]) -> tuple[str, ...]:
    return case["id"], case["metric"], case["layout"], case.get("point", "")


def cases_of(data: Mapping[str, Any]) -> list[Case]:
    """The cases of a shipped result."""
    known = {field.name for field in fields(Case)}
    shared = data["columns"]
    found = []
    for one in data["cases"]:
        told = {name: v for name, v in {**EMPTY, **shared[one["layout"]], **one}.items() if name in known}
        pairs = {name: tuple(told[name]) for name in PAIRS if told.get(name)}
        found.append(Case(**{**told, **pairs}))
    return found


def with_errors(data: Mapping[str, Any]) -> list[Case]:
    """The same with the simulated values that their errors tell, which were taken before any rounding."""
    errors = [one["error"] for one in data["cases"]]
    return [
        replace(case, simulated=case.published * (1 + error))
        for case, error in zip(cases_of(data), errors, strict=True)
    ]


def _shared(cases: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The cases without what those of a layout have in common, and that by layout."""
    columns = {}
    for layout, group in grouped(cases, lambda case: case["layout"]).items():
        shared = {n: v for n, v in group[0].items() if n in SHARED and all(c[n] == v for c in group)}
        columns[layout] = shared
        for case in group:
            left_out = {*shared, *(() if case["band"] else ("source",))}
            for name in [n for n, value in case.items() if n in left_out or value in (None, "")]:
                del case[name]
    return cases, columns


def rounded(value: Any) -> Any:
    """The same JSON with every float at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def lines(data: Mapping[str, Any]) -> str:
    """JSON with one line per key, and one per entry of a list."""

    def text(value: Any) -> str:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))

    def block(value: Any) -> str:
        return "[\n" + ",\n".join(map(text, value)) + "\n]" if isinstance(value, list) else text(value)

    return "{\n" + ",\n".join(f"{text(key)}:{block(value)}" for key, value in data.items()) + "\n}\n"


def pools(rows: Iterable[Row]) -> dict[str, Served]:
    """Id of a row, of a service or of a published step -> the pool or the service that was measured."""
    steps = points()["points"]
    return {
        **{one["id"]: service(resolve(service_scenario(kind, one))) for kind, one in entries()},
        **{point["id"]: served(setup(point)[1], point["phase"]) for point in steps},
        **{row.id: service(resolve(scenario_of(row, row.conc))) for row in rows},
    }


def by_pool(cases: Sequence[Case], measured: Mapping[str, Served]) -> list[Validated]:
    """Errors by pool, in the order of the cases. Only the test half is held out: the mechanisms of the published
    steps were built in sight of them.
    """
    groups: dict[tuple[Served, bool], list[Case]] = {}
    for case in cases:
        if case.metric in NAMES:
            groups.setdefault((measured[case.id], case.split == "test"), []).append(case)
    return [
        Validated(pool, held_out, len({case.id for case in group}), **_errors(group))
        for (pool, held_out), group in groups.items()
    ]


def _errors(cases: Sequence[Case]) -> dict[str, float | None]:
    scores = {name: score(case for case in cases if NAMES[case.metric] == name) for name in METRICS}

    def of(found: Score | None, p90: bool) -> float | None:
        return None if found is None else float(rounded(found.p90 if p90 else found.median))

    return {f"{name}{'_p90' * p90}": of(scores[name], p90) for name in METRICS for p90 in (False, True)}


def main(names: Sequence[str]) -> None:
    """Validate all that is shipped and write both files; with `names` these cases anew, the others as they are."""
    found = validate(SHIPPED, names, published=True, workers=2)
    data = renewed(json.loads(FILE.read_text(encoding="utf-8")), found) if names else brief(found)
    FILE.write_text(lines(data), encoding="utf-8")
    cases = with_errors(data) if names else found.cases
    told = {case.id for case in cases}
    measured = pools(row for row in shipped_rows() if row.id in told)
    table = by_pool([case for case in cases if case.id in measured], measured)
    Path(sim.catalog.__file__).with_name(VALIDATED).write_text(written(table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
