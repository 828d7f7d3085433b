"""Writes what is shipped of validating everything that is published here.

    python -m sim.validation.digest

`digest.json` is the JSON of `tokenworks validate`, small enough to ship and one case a line: rounded, what the cases
of a layout have in common told once, what was skipped counted by reason, without scores by layout and the compositions
of steps.
`catalog/validated.csv` holds the errors by deployment, from which a run takes its expected error.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from sim.validation.rows import Row, read_rows
from sim.validation.scenarios import scenario_of
from sim.validation.services import entries, service_scenario
from sim.validation.skips import general
from sim.validation.table import SHIPPED, Validation, validate

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
SHARED: Final = ("model", "gpu", "engine", "release", "precision", "phase", "split")
"""Columns that the cases of a layout mostly have in common."""


def brief(found: Validation) -> dict[str, Any]:
    """The result without what takes most of its room."""
    data: dict[str, Any] = rounded(found.json())
    del data["compositions"], data["layouts"]
    data["columns"] = {}
    for layout, cases in grouped(data["cases"], lambda case: case["layout"]).items():
        shared = {
            name: v for name, v in cases[0].items() if name in SHARED and all(c[name] == v for c in cases)
        }
        data["columns"][layout] = shared
        for case in cases:
            for name in [
                name for name, value in case.items() if name in (*shared, "source") or value in (None, "")
            ]:
                del case[name]
    data["skipped"] = dict(Counter(general(one["reason"]) for one in data["skipped"]))
    return data


def rounded(value: Any) -> Any:
    """The same JSON with every float at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


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


def main() -> None:
    """Validate all that is shipped, which takes ten minutes on two cores, and write both files."""
    found = validate(SHIPPED, published=True, workers=2)
    FILE.write_text(lines(brief(found)), encoding="utf-8")
    measured = pools(row for row in read_rows(SHIPPED) if row.id not in found.skipped)
    table = by_pool([case for case in found.cases if case.id in measured], measured)
    Path(sim.catalog.__file__).with_name(VALIDATED).write_text(written(table), encoding="utf-8")


if __name__ == "__main__":
    main()
