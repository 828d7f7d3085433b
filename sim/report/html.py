"""A run, or several side by side, as one HTML file that needs nothing else: no server, no network, no fonts."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from sim.catalog.validated import in_words
from sim.report import drawing, said, tables
from sim.report import run as runs
from sim.report.look import Chart
from sim.report.run import Run, Shown
from sim.report.terms import TERMS, meaning
from sim.scenario import anchor
from sim.scenario.loading import to_yaml

STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 0; }
p.says, ul.says { color: #556; margin: .2rem 0 .4rem; } p.lead { font-size: 1.1rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .25rem .7rem; border-bottom: 1px solid #dde; }
th { text-align: left; font-weight: 600; } td { text-align: right; font-variant-numeric: tabular-nums; }
td:first-child { text-align: left; } div.wide { overflow-x: auto; } details { margin: .3rem 0 1rem; color: #334; }
pre { background: #f4f6f9; padding: .8rem; overflow-x: auto; } .bad { color: #b3263c; font-weight: 600; }
.good { color: #23703f; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; color: #445; }
footer { color: #667; margin-top: 3rem; font-size: .85rem; }
"""
DIGITS: Final = 4
"""Significant digits of a number in a table."""


def write_report(result: Run | Mapping[str, Run], path: Path, name: str | None = None) -> None:
    """Write the page of a run, or of several by name, to `path`."""
    named = dict(result) if isinstance(result, Mapping) else {name or path.parent.name or "run": result}
    path.write_text(report([runs.shown(n, run) for n, run in named.items()]), encoding="utf-8")


def report(services: list[Shown]) -> str:
    """The page of simulated services."""
    simulated = {one.name: one.run.json() for one in services if one.run}
    title = " and ".join(simulated) if len(simulated) < 4 else f"{len(simulated)} scenarios"
    body = [
        f"<h1>{escape(title)}</h1>",
        *(_lead(name, run) for name, run in simulated.items()),
        *_notes(simulated),
        *(f"<p class='says'>{escape(told)}.</p>" for told in runs.unlike(services)),
        table_part(tables.headline_table(simulated).set_index("scenario").T.reset_index(names="")),
        *(chart_part(chart) for chart in runs.charts(services).values()),
        *(_applied(one) for one in services),
        _terms(),
        _footer(next(iter(simulated.values()))),
    ]
    return document(title, body)


def document(title: str, body: Iterable[str]) -> str:
    """A page that needs nothing else."""
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)} - Tokenworks</title>"
        f"<link rel='icon' href='data:,'><style>{STYLE}</style>{drawing.head()}</head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _lead(name: str, run: Mapping[str, Any]) -> str:
    """The answer in two sentences."""
    scenario, blended = run["scenario"], tables.at(run, "cost", "usd_per_million", "blended")
    price = f"${blended:.3g} per million tokens" if blended is not None else "no tokens served"
    hour, bought = tables.at(run, "cost", "usd_per_gpu_hour"), tables.at(run, "cost", "bought_gpus")
    paid = "-" if bought is None else f"{bought:.1f}".removesuffix(".0")
    told = (
        f"<b>{escape(name)}</b>: {price} at {escape(str(tables.at(run, 'cost', 'tier')))} "
        f"({'-' if hour is None else f'${hour:.2f}'} per GPU-hour). "
        f"{escape(Path(scenario['model']).name)} on {run['gpus']} GPUs {escape(Path(scenario['gpu']).name)} "
        f"({paid} paid for), engine {escape(scenario['engine'])}, "
        f"{tables.at(run, 'requests', 'completed') or 0:,} requests."
    )
    if run["stable"] is None:
        told += " The work ends: it is told as a whole, and paid for until its last answer."
    elif not run["stable"]:
        told += " <span class='bad'>Not stable: requests arrive faster than they are served.</span>"
    for text, kept in said.promises(run):
        told += f"<br><span class='{'good' if kept else 'bad'}'>{escape(text)}</span>"
    told += f"<br>Expected error: {escape(in_words(run.get('expected_error')))}."
    if "anchor" in run:
        told += f"<br>Anchored on {escape(anchor.in_words(run['anchor']))}."
    return f"<p class='lead'>{told}</p><p class='says'>{escape(said.basis(run))}.</p>"


def _notes(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a reader should know of the figures, each note once."""
    owners: dict[str, list[str]] = {}
    for name, run in runs.items():
        for note in run.get("notes") or ():
            owners.setdefault(note, []).append(name)
    if owners:
        items = [f"<li>{escape(', '.join(names))}: {escape(note)}</li>" for note, names in owners.items()]
        yield f"<h2>Notes</h2><ul class='says'>{''.join(items)}</ul>"


def chart_part(chart: Chart) -> str:
    """A chart with its words, and its numbers folded away."""
    figure = drawing.figure_part(
        go.Figure(chart.figure).update_layout(template="plotly_white"), f"chart-{chart.key}"
    )
    return (
        f"<h2{_explained(chart.terms)}>{escape(chart.title)}</h2><p class='says'>{escape(chart.says)}</p>{figure}"
        f"<details><summary>The numbers</summary>{table_part(chart.table.head(200))}</details>"
    )


def _explained(terms: Iterable[str]) -> str:
    """What the words mean, for the pointer that rests on a heading."""
    said = "\n".join(f"{term}: {TERMS[term]}" for term in terms)
    return f' title="{escape(said, quote=True)}"' if said else ""


def table_part(table: pd.DataFrame) -> str:
    """A table."""
    head = "".join(f"<th>{_term(str(column))}</th>" for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if pd.isna(value):
            return "-"
        return f"{value:,.0f}" if abs(value) >= 10**DIGITS else f"{value:.{DIGITS}g}"
    return "-" if value is None else _term(str(value))


def _term(text: str) -> str:
    """The text, explained on hover where it is a term or begins with one."""
    said = meaning(text)
    return f"<abbr title='{escape(said, quote=True)}'>{escape(text)}</abbr>" if said else escape(text)


def _applied(one: Shown) -> str:
    return (
        f"<details><summary>Scenario of {escape(one.name)}, as applied (seed "
        f"{one.run.json()['seed'] if one.run else 0})</summary><pre>{escape(to_yaml(one.scenario))}</pre></details>"
    )


def _terms(words: Iterable[str] = TERMS) -> str:
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{escape(TERMS[word])}</dd>" for word in words)
    return f"<details><summary>What the words mean</summary><dl>{rows}</dl></details>"


def _footer(run: Mapping[str, Any]) -> str:
    return f"<footer>Tokenworks {escape(run['version'])}, catalog of {escape(run['catalog_date'])}.</footer>"
