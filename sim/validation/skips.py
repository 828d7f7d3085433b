"""Which rows of a table are not simulated, and why: what is not modelled, contradicts itself, or stands there twice."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sim import catalog
from sim.catalog.facts import UnknownName
from sim.catalog.profiles import shipped_profiles
from sim.validation.recipes import recipes
from sim.validation.rows import Row

MOST_LITTLE_RATIO: Final = 1.1
"""Above it a row contradicts Little's law: its throughput, TPOT and concurrency do not belong together."""
SAME_RUN: Final = 0.01
"""Throughput and TPOT this close under two labels are one run."""


BRIEF: Final = ("no layout", "inconsistent", "cannot run")
"""Reasons that end, in general, where their details begin."""


def skipped(rows: Sequence[Row]) -> dict[str, str]:
    """Row id -> why it is not simulated; rows that are do not appear."""
    reasons = {row.id: reason for row in rows if (reason := next(_faults(row), ""))}
    return reasons | _duplicates([row for row in rows if row.id not in reasons])


def _faults(row: Row) -> Iterator[str]:
    """Why a row cannot be simulated by itself, what decides first; nothing where it can."""
    known = recipes()
    if row.spec not in ("none", *known["drafts"]):
        yield f"speculation '{row.spec}' is not modelled; modelled: {', '.join(known['drafts'])}"
    try:
        catalog.model(row.model)
    except (UnknownName, ValueError) as unknown:
        yield f"the model is not in the catalog: {unknown}"
    if row.engine not in known["engines"]:
        yield f"engine '{row.engine}' is not modelled; modelled: {', '.join(known['engines'])}"
    if row.precision not in known["precisions"]:
        yield f"precision '{row.precision}' is not modelled; modelled: {', '.join(known['precisions'])}"
    try:
        profile = f"{catalog.gpu(row.hardware).name}/{known['engines'].get(row.engine)}"
        if profile not in shipped_profiles():
            yield f"no measured profile {profile}"
    except UnknownName as unknown:
        yield f"no measured profile: {unknown}"
    if row.by_recipe and row.hardware not in known["scripts_read"]:
        yield f"InferenceX's launch scripts for {row.hardware} were not read"
    if row.little_ratio is not None and row.little_ratio > MOST_LITTLE_RATIO:
        yield (
            f"inconsistent: little_ratio {row.little_ratio:g} is above {MOST_LITTLE_RATIO:g}, so throughput, "
            "TPOT and concurrency contradict each other"
        )
    labelled = known["labels_recorded_from"].get(row.hardware)
    if (
        row.by_recipe
        and labelled
        and not row.disaggregated
        and row.ran
        and row.ran < labelled
        and row.decoding.ep == 1
    ):
        yield f"ran before {labelled}, when EP and attention DP were not recorded yet"
    if not row.published:
        yield "no metric that is scored"
    if min(row.isl, row.osl, row.conc) < 1 or not all(shape.divides for shape in row.pools.values()):
        yield f"no layout: {row.layout}, isl {row.isl}, osl {row.osl}, conc {row.conc}"


def _duplicates(rows: Sequence[Row]) -> dict[str, str]:
    """Rows that repeat another one: one run told twice, under two labels, or a median beside its own runs."""
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        # A table of one's own may have no ids of deployments.
        deployment = row.deployment_id or (
            row.hardware,
            row.framework,
            row.precision,
            row.spec,
            row.decoding.gpus,
        )
        points.setdefault((row.model, deployment, row.isl, row.osl, row.conc), []).append(row)
    reasons: dict[str, str] = {}
    for point in points.values():
        # What is kept first: verbatim rows, then the ones that say how the experts are laid out.
        kept: list[Row] = []
        for row in sorted(
            point, key=lambda r: (not r.verbatim, -r.decoding.ep, -r.decoding.dp_attention, r.id)
        ):
            if reason := next((r for other in kept if (r := _repeats(row, other))), ""):
                reasons[row.id] = reason
            else:
                kept.append(row)
    return reasons


def _repeats(row: Row, other: Row) -> str:
    """Why `row` repeats `other`, which is kept; empty where it does not."""
    shared = [c for c in row.figures if c in other.figures and not c.endswith("ttft_ms")]
    same = bool(shared) and all(abs(row.figures[c] / other.figures[c] - 1) <= SAME_RUN for c in shared)
    if row.pools != other.pools:
        return f"the run of {other.id} under another label (figures within {SAME_RUN:.0%})" if same else ""
    if other.verbatim and not row.verbatim:
        return f"a median over runs such as {other.id}"
    return f"the run of {other.id} in another source" if same and row.ran == other.ran else ""


def general(reason: str) -> str:
    """A reason without the row, the deployment or the numbers that it names."""
    kind, _, _ = reason.partition(": ")
    words = (
        "another row" if word.startswith("IX") else word
        for word in (kind if kind in BRIEF else reason).split()
    )
    return " ".join(words)
