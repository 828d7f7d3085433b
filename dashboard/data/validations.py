"""What validation has found: the shipped result, or one that a user brings."""

import json
from importlib import resources
from typing import Final

import pandas as pd
import streamlit as st

from dashboard.data.problems import BadInput, harmless, said
from sim.report import validation
from sim.report.look import Chart

DIGEST: Final = "digest.json"
"""Shipped result of `tokenworks validate --json`, beside the code that made it."""
LARGEST_BYTES: Final = 16 * 1024 * 1024
MOST: Final = 1e15
"""Of a figure: no published one is near it, and charts multiply it."""
NUMBERS: Final = ("published", "simulated", "error")
MARKUP: Final = r"[^\w ,./%()-]"
"""What the names of metrics and models, which stand in sentences, cannot hold."""
TOLD: Final = validation.TOLD
COMMAND: Final = "tokenworks validate --json > validation.json"


@st.cache_resource(show_spinner=False)
def digest() -> pd.DataFrame | None:
    """The cases of the shipped result; None where none is shipped."""
    file = resources.files("sim.validation").joinpath(DIGEST)
    return validation.cases_table(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


@said
def read(raw: bytes) -> pd.DataFrame:
    """The cases of an uploaded result. Raises BadInput."""
    if len(raw) > LARGEST_BYTES:
        raise BadInput(f"larger than {LARGEST_BYTES // 2**20} MB")
    try:
        found = json.loads(raw)
    except RecursionError:
        raise BadInput("nested too deep; expected the JSON of `tokenworks validate --json`") from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text; expected the JSON of `tokenworks validate --json`") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    _check_values(found)
    table = harmless(validation.cases_table(found))
    for column in NUMBERS:  # which a text may have spelt, such as "inf"
        if (wrong := table[column].abs() > MOST).any():
            raise BadInput(f"case {int(wrong.argmax()) + 1}: {column}: expected a number up to {MOST:g}")
    words = {name: table[name].astype(str).replace(MARKUP, "?", regex=True) for name in ("metric", "model")}
    return table.assign(**words)


def _check_values(found: object) -> None:
    """Raises BadInput where a value of a case is none that a table or a chart holds: a list, a section, or a number
    beyond MOST."""
    cases = found.get("cases") if isinstance(found, dict) else None
    shared = found.get("columns") if isinstance(found, dict) else None
    told = [
        *(cases if isinstance(cases, list) else ()),
        *(shared.values() if isinstance(shared, dict) else ()),
    ]
    for place, case in enumerate(told, start=1):
        for key, value in case.items() if isinstance(case, dict) else ():
            if isinstance(value, list | dict) or (isinstance(value, float | int) and not abs(value) <= MOST):
                raise BadInput(
                    f"case {place}: {str(key)[:40]}: expected text or a number up to {MOST:g}, got {repr(value)[:40]}"
                )


def units() -> dict[str, str]:
    """Metrics and what their numbers are."""
    return dict(validation.UNITS)


def scatter(cases: pd.DataFrame, metric: str, by: str) -> Chart:
    """Simulated against measured."""
    return validation.scatter_chart(cases, metric, by)


def errors(cases: pd.DataFrame, metric: str) -> Chart:
    """Error by GPU and engine."""
    return validation.error_chart(cases, metric)


def headline(cases: pd.DataFrame, metric: str) -> str:
    """How far off one metric is, held-out values first."""
    return validation.headline(cases, metric)


def scores(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases, median, p90 and bias per metric and half."""
    table = validation.score_table(cases, ["metric", "half"])
    return table.assign(metric=table.metric.replace(validation.UNITS))


def bands(cases: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Cases of one metric with the band that they must keep, and why it is as wide as it is."""
    return validation.band_table(cases[cases.metric == metric])


def band_reasons(banded: pd.DataFrame, column: str) -> pd.DataFrame:
    """What a column of TOLD says, once for all its cases."""
    return validation.band_reasons(banded, column)
