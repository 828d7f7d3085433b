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


def skipped(rows: Sequence[Row]) -> dict[str, str]:
    """Row id -> why it is not simulated; rows that are do not appear."""
    reasons = {row.id: reason for row in rows if (reason := next(_faults(row), ""))}
    return reasons | _duplicates([row for row in rows if row.id not in reasons])


def _faults(row: Row) -> Iterator[str]:
    """Why a row cannot be simulated by itself, what decides first; nothing where it can."""
    known = recipes()
    if row.disaggregated:
        yield "prefill and decode are disaggregated: aggregated rows only so far"
    if row.spec != "none":
        yield f"speculation ({row.spec}) with unknown acceptance"
    try:
        catalog.model(row.model)
    except (UnknownName, ValueError) as unknown:
        yield f"the model is not in the catalog: {unknown}"
    if row.framework not in known["engines"]:
        yield f"engine '{row.framework}' is not modelled; modelled: {', '.join(known['engines'])}"
    if row.precision not in known["precisions"]:
        yield f"precision '{row.precision}' is not modelled; modelled: {', '.join(known['precisions'])}"
    try:
        profile = f"{catalog.gpu(row.hardware).name}/{known['engines'].get(row.framework)}"
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
    if row.by_recipe and labelled and row.ran and row.ran < labelled and row.ep == 1:
        yield f"ran before {labelled}, when EP and attention DP were not recorded yet"
    if not row.published:
        yield "no metric that is scored"
    if min(row.isl, row.osl, row.conc, row.gpus) < 1 or row.gpus % row.ep:
        yield f"{row.gpus} GPUs, EP{row.ep}, isl {row.isl}, osl {row.osl}, conc {row.conc} is no layout"


def _duplicates(rows: Sequence[Row]) -> dict[str, str]:
    """Rows that repeat another one: one run told twice, under two labels, or a median beside its own runs."""
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        # A table of one's own may have no ids of deployments.
        deployment = row.deployment_id or (row.hardware, row.framework, row.precision, row.gpus)
        points.setdefault((row.model, deployment, row.isl, row.osl, row.conc), []).append(row)
    reasons: dict[str, str] = {}
    for point in points.values():
        # What is kept first: verbatim rows, then the ones that say how the experts are laid out.
        kept: list[Row] = []
        for row in sorted(point, key=lambda r: (not r.verbatim, -r.ep, -r.dp_attention, r.id)):
            if reason := next((r for other in kept if (r := _repeats(row, other))), ""):
                reasons[row.id] = reason
            else:
                kept.append(row)
    return reasons


def _repeats(row: Row, other: Row) -> str:
    """Why `row` repeats `other`, which is kept; empty where it does not."""
    shared = [c for c in row.figures if c in other.figures and not c.endswith("ttft_ms")]
    same = bool(shared) and all(abs(row.figures[c] / other.figures[c] - 1) <= SAME_RUN for c in shared)
    if (row.ep, row.dp_attention) != (other.ep, other.dp_attention):
        return f"the run of {other.id} under another label (figures within {SAME_RUN:.0%})" if same else ""
    if other.verbatim and not row.verbatim:
        return f"a median over runs such as {other.id}"
    return f"the run of {other.id} in another source" if same and row.ran == other.ran else ""
