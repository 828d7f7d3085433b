"""The constants of running engines that no table of kernels gives, fitted on the train half of the published rows that
are aggregated and without drafts.

    python -m sim.validation.fit
    python -m sim.validation.fit disaggregated
    python -m sim.validation.fit v4

TPOT is nearly linear in them: one run of the train half at a base, one with more host time and one with dearer
communication give every row's slope. The constants are then those that minimise

    sum over rows of w |(T + sum_k J_k x_k) / published - 1|,  x >= 0

with T and J the base and the slopes, and w = 1 / rows of the layout, so that long sweeps do not dominate: least
absolute deviations, a linear programme with one solution. How unevenly the prompts choose experts is not linear; it
is tried at a few values. `catalog/engines` holds what came out, by release; the test half judges it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from sim import catalog
from sim.catalog.engines import described, since
from sim.scenario.schema import Scenario
from sim.steady.state import steady
from sim.validation.case import Case
from sim.validation.recipes import recipes, settings
from sim.validation.rows import Row, read_rows
from sim.validation.scenarios import scenario_of, settings_of
from sim.validation.skips import skipped
from sim.validation.split import split_of
from sim.validation.table import SHIPPED, TABLES, validate_rows

Floats = NDArray[np.float64]

HOST_S: Final = 1e-3
"""Difference of host time over which slopes are taken."""
FACTORS: Final = (1.0, 2.0)
"""Communication factors over which slopes are taken."""
SIGMAS: Final = (0.0, 0.35, 0.7, 1.05)
"""Popularity of experts that is tried: from even to the one published distribution."""
COMMUNICATION: Final = "communication_factor"
HOST: Final = "host_overhead_s"


@dataclass(frozen=True)
class Slopes:
    """TPOT of the train half's rows, seconds, and what it gains per unit of a constant."""

    rows: Sequence[Row]
    layouts: Sequence[str]
    published: Floats
    base: Floats
    """With no host time, and communication as measured alone."""
    host: Floats
    """Per second of host time in a step."""
    communication: Floats
    """Per unit of the communication factor."""


@dataclass(frozen=True)
class Fitted:
    """Constants, and what they leave."""

    constants: Mapping[str, float]
    loss: float
    """Mean over layouts of the mean absolute relative error."""


def slopes(rows: Sequence[Row], sigma: float, max_prompts: int) -> Slopes:
    """Three runs of the rows: base, host time, communication."""

    def tpot(host_s: float, factor: float) -> list[Case]:
        found = validate_rows(rows, max_prompts, change=_with(host_s, factor, sigma))
        return [case for case in found.cases if case.metric == "tpot"]

    base, host, communication = tpot(0.0, FACTORS[0]), tpot(HOST_S, FACTORS[0]), tpot(0.0, FACTORS[1])
    seconds = [np.array([case.simulated for case in cases]) for cases in (base, host, communication)]
    by_id = {row.id: row for row in rows}
    return Slopes(
        [by_id[case.id] for case in base],
        [case.layout for case in base],
        np.array([case.published for case in base]),
        seconds[0],
        (seconds[1] - seconds[0]) / HOST_S,
        (seconds[2] - seconds[0]) / (FACTORS[1] - FACTORS[0]),
    )


def _with(host_s: float, factor: float, sigma: float) -> Callable[[Scenario], Scenario]:
    def change(scenario: Scenario) -> Scenario:
        habits = {HOST: host_s, COMMUNICATION: factor}
        return scenario.model_copy(
            update={
                "scheduling": scenario.scheduling.model_copy(update=habits),
                "experts": scenario.experts.model_copy(update={"popularity_sigma": sigma}),
            }
        )

    return change


def host_constant(row: Row) -> str:
    """The host constant of a row: that of its engine or, for a release older than the tables, of release and
    precision, whose kernels changed most from one release to the next."""
    known = recipes()
    engine = known["engines"][row.framework]
    default = described(engine)["default"]
    ran = (settings(row.columns(), row.ran) if row.by_recipe else {}).get("engine_version", default)
    of, todays = (since(engine, release, HOST) for release in (ran, default))
    return f"{row.framework} {HOST}" if of == todays else f"{row.framework} {of} {row.precision} {HOST}"


def fit(found: Slopes) -> Fitted:
    """The constants with the least mean absolute relative error, every layout counting once."""
    wanted = [host_constant(row) for row in found.rows]
    names = [COMMUNICATION, *sorted(set(wanted))]
    design = np.zeros((len(found.rows), len(names)))
    design[:, 0] = found.communication
    for i, name in enumerate(wanted):
        design[i, names.index(name)] = found.host[i]
    sizes = {layout: found.layouts.count(layout) for layout in found.layouts}
    weights = np.array([1 / sizes[layout] for layout in found.layouts]) / len(sizes)
    values = least_deviations(design / found.published[:, None], 1 - found.base / found.published, weights)
    left = design @ values / found.published + found.base / found.published - 1
    values[0] += FACTORS[0]
    return Fitted(dict(zip(names, values.tolist(), strict=True)), float(weights @ np.abs(left)))


def least_deviations(design: Floats, target: Floats, weights: Floats) -> Floats:
    """x >= 0 that minimises sum w |design x - target|, as a linear programme with one slack per row."""
    rows, columns = design.shape
    slack = np.eye(rows)
    solved = linprog(
        np.concatenate([np.zeros(columns), weights]),
        A_ub=np.block([[design, -slack], [-design, -slack]]),
        b_ub=np.concatenate([target, -target]),
        method="highs",
    )
    if solved.x is None:
        raise ArithmeticError(f"no best constants: {solved.message}")
    return np.asarray(solved.x[:columns])


def decode_pool_host(max_prompts: int = 400, per_layout: int = 5) -> None:
    """Print, by engine, the host time per step of pools that only decode, from disaggregated rows without drafts.

    TPOT is linear in it. Of each layout up to `per_layout` rows are run, spread over its loads.
    """
    layouts: dict[str, list[Row]] = {}
    for row in read_rows(SHIPPED):
        if split_of(row.deployment_id) == "train" and row.disaggregated and row.spec == "none":
            layouts.setdefault(row.deployment_id, []).append(row)
    rows = []
    for of_layout in layouts.values():
        of_layout.sort(key=lambda row: (row.conc, row.isl, row.id))
        at = np.linspace(0, len(of_layout) - 1, min(per_layout, len(of_layout)))
        rows += [of_layout[int(i)] for i in at]

    def tpot(host_s: float) -> list[Case]:
        def change(scenario: Scenario) -> Scenario:
            rules = scenario.scheduling.model_copy(update={HOST: host_s})
            return scenario.model_copy(update={"scheduling": rules})

        found = validate_rows(rows, max_prompts, change=change)
        return [case for case in found.cases if case.metric == "tpot"]

    base, more = tpot(0.0), tpot(HOST_S)
    engines = {row.id: row.engine for row in rows}
    for engine in sorted({engines[case.id] for case in base}):
        mine = [i for i, case in enumerate(base) if engines[case.id] == engine]
        published = np.array([base[i].published for i in mine])
        before = np.array([base[i].simulated for i in mine])
        slope = (np.array([more[i].simulated for i in mine]) - before) / HOST_S
        # What the catalog has by now is in every run, and is what is looked for.
        before -= slope * catalog.engine(recipes()["engines"][engine]).decode_pool_host_s
        of = [base[i].layout for i in mine]
        weights = np.array([1 / of.count(layout) for layout in of]) / len(set(of))
        [host_s] = least_deviations((slope / published)[:, None], 1 - before / published, weights)
        errors = (np.median(np.abs(x / published - 1)) for x in (before, before + slope * host_s))
        told = " to ".join(f"{error:.1%}" for error in errors)
        print(f"{engine}: {host_s:.3g} s, median error {told}, {len(mine)} rows of {len(set(of))} layouts")


def compressed_host(least_little_ratio: float = 0.8) -> None:
    """Print, by engine, the host time per step of V4, and the error that is left by layout, from aggregated rows
    without drafts in which queues do not decide (`little_ratio`, see `data/README.md`).

    By the estimate, which large loads need no long runs for. TPOT is linear in it. What the catalog and the recipes
    have by now is in every estimate, and is what is looked for.
    """
    table = read_rows(TABLES["v4"])
    rows = [
        row
        for row in table
        if split_of(row.deployment_id) == "train" and not row.disaggregated and row.spec == "none"
        and (row.little_ratio or 0.0) >= least_little_ratio and row.id not in skipped(table)
    ]  # fmt: skip

    def known_s(row: Row) -> float:
        engine = catalog.engine(recipes()["engines"][row.engine])
        return engine.compressed_host_s + float(settings_of(row).get(HOST, engine.host_overhead_s))

    def tpot(row: Row, more_s: float) -> float:
        scenario = scenario_of(row, row.conc)
        engine = catalog.engine(recipes()["engines"][row.engine])
        rules = {HOST: known_s(row) - engine.compressed_host_s + more_s}
        return steady(
            scenario.model_copy(update={"scheduling": scenario.scheduling.model_copy(update=rules)})
        ).point.tpot_s

    published = np.array([row.published["tpot"].value for row in rows])
    base = np.array([tpot(row, 0.0) for row in rows])
    slope = (np.array([tpot(row, HOST_S) for row in rows]) - base) / HOST_S
    base -= slope * np.array([known_s(row) for row in rows])
    layouts, engines = [row.layout for row in rows], sorted({row.engine for row in rows})
    weights = np.array([1 / layouts.count(name) for name in layouts]) / len(set(layouts))
    mine = np.array([[row.engine == engine for engine in engines] for row in rows])
    hosts = least_deviations(mine * (slope / published)[:, None], 1 - base / published, weights)
    left = (base + slope * (mine @ hosts)) / published - 1
    now = {row.engine: known_s(row) for row in rows}
    told = ", ".join(
        f"{engine} {host_s:.3g} s (with host_overhead_s; now {now[engine]:.3g})"
        for engine, host_s in zip(engines, hosts, strict=True)
    )
    print(f"{told}; mean error {float(weights @ np.abs(left)):.1%}, {len(rows)} rows")
    for name in dict.fromkeys(layouts):
        errors = left[[layout == name for layout in layouts]]
        print(f"  {name}: {np.median(np.abs(errors)):.1%}, {np.median(errors):+.1%}")


def main(max_prompts: int = 2000) -> None:
    """Print the fitted constants for each popularity of experts.

    Rows are aggregated ones without drafts, whose TPOT hangs on nothing but steps.
    """
    rows = [
        row
        for row in read_rows(SHIPPED)
        if split_of(row.deployment_id) == "train" and not row.disaggregated and row.spec == "none"
    ]
    for sigma in SIGMAS:
        found = fit(slopes(rows, sigma, max_prompts))
        told = ", ".join(f"{name} {value:.3g}" for name, value in found.constants.items())
        print(f"popularity_sigma {sigma}: mean error {found.loss:.2%}; {told}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["disaggregated"]:
        decode_pool_host()
    elif sys.argv[1:] == ["v4"]:
        compressed_host()
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
