"""What several pages show alike: a chart with its words and table, a problem, a simulation under way, downloads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pandas as pd
import streamlit as st

from dashboard.data import TERMS, Chart, meaning
from dashboard.data.problems import BadInput
from dashboard.data.services import Figure
from dashboard.jobs import Busy, Job

POLL_S: Final = 0.5
"""Seconds between looks at a simulation."""
LEAST_CHANGE: Final = 0.0005
"""A change that a person would call none."""
LABELS: Final = {
    "blended, USD/M": "blended, $/M",
    "input, cache hit, USD/M": "hit, $/M",
    "input, cache miss, USD/M": "miss, $/M",
    "output, USD/M": "output, $/M",
    "output tokens/s per GPU": "tokens/s/GPU",
}
"""Headings where room is short."""


def chart(one: Chart) -> None:
    """A figure with its title, its sentence, and the table behind it."""
    _words(one)
    _figure(one)


def beside(left: Chart, right: Chart) -> None:
    """Two charts in a row: their figures on one line whatever the length of their sentences, and equally high."""
    height = max(one.figure.layout.height for one in (left, right))
    for show in (_words, partial(_figure, height=height)):
        for column, one in zip(st.columns(2, gap="medium"), (left, right), strict=True):
            with column:
                show(one)


def _words(one: Chart) -> None:
    explained = "  \n".join(f"**{word}**: {TERMS[word]}" for word in one.terms)
    st.markdown(f"#### {one.title}", help=explained or None)
    st.caption(one.says)


def _figure(one: Chart, height: int | None = None) -> None:
    st.plotly_chart(
        one.figure, key=one.key, height=height or "content", alt=one.says,
        config={"displaylogo": False, "displayModeBar": False},
    )  # fmt: skip
    if len(one.table):
        with st.expander("The numbers"):
            table(one.table, one.key)


def table(data: pd.DataFrame, name: str) -> None:
    """A table with its headings explained, and a download."""
    rows(data, f"table-{name}")
    st.download_button(
        "CSV", data.to_csv(index=False).encode(), f"{name}.csv", "text/csv", key=f"csv-{name}",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def rows(data: pd.DataFrame, key: str) -> None:
    """A table with its headings explained."""
    st.dataframe(data, hide_index=True, column_config=_headings(data), placeholder="-", key=key)


def _headings(data: pd.DataFrame) -> dict[str, Any]:
    """Explanations of the headings, short where there is little room, and four digits for the numbers."""
    configured: dict[str, Any] = {}
    for column in map(str, data.columns):
        label, said = LABELS.get(column), meaning(column)
        if column in ("load", "bias") or column.endswith("error") or "share" in column:
            configured[column] = st.column_config.NumberColumn(label, help=said, format="percent")
        elif pd.api.types.is_float_dtype(data[column]):
            configured[column] = st.column_config.NumberColumn(label, help=said, format="%.4g")
        elif said:
            configured[column] = st.column_config.Column(label, help=said)
    return configured


@contextmanager
def mending() -> Iterator[None]:
    """Inside, what the user can mend becomes a message on the page instead of an end of it."""
    try:
        yield
    except BadInput as problem:
        st.error("\n".join(f"    {line}" for line in str(problem).splitlines()), icon=":material/error:")


def file_name(scenario: str) -> str:
    """The name under which a scenario is saved."""
    return scenario.replace("/", "-") + ".yaml"


def simulate(names: Sequence[str], start: Callable[[str], Job]) -> None:
    """Start the simulation of each of these scenario texts."""
    try:
        for text in names:
            start(text)
    except Busy as busy:
        st.toast(str(busy), icon=":material/hourglass:")


def watch(running: dict[str, Job]) -> None:
    """Bars for the simulations under way, looked at twice a second; the page is drawn again when one ends."""
    if not running:
        return

    @st.fragment(run_every=POLL_S)
    def bars() -> None:
        for name, job in running.items():
            done, total = job.progress
            if not job.under_way:
                st.rerun()
            words = f"{done:,} of {total:,} requests" if total else "preparing"
            if job.state == "waiting":
                words = "waiting for its turn"
            elif total and done == total:
                words = "writing its results"
            bar, button = st.columns([6, 1], vertical_alignment="center")
            bar.progress(done / total if total else 0.0, text=f"{name}: {words}")
            if button.button("Cancel", key=f"cancel-{name}", icon=":material/stop:"):
                job.cancel()
                st.rerun()

    bars()


def ended(name: str, job: Job | None) -> None:
    """What a simulation that gave no result has to say."""
    if job and job.state == "failed":
        st.error(f"{name}: {job.message}", icon=":material/error:")
    elif job and job.state == "cancelled":
        st.info(f"{name}: cancelled.", icon=":material/stop:")


def figures(now: Sequence[Figure], before: Sequence[Figure] = ()) -> None:
    """Figures side by side, each with its change against the baseline."""
    for i, (column, figure) in enumerate(zip(st.columns(len(now)), now, strict=True)):
        then = before[i].value if before else None
        change = figure.value / then - 1 if then and figure.value is not None else None
        unchanged = change is None or abs(change) < LEAST_CHANGE
        column.metric(
            figure.label,
            figure.text,
            None if change is None else f"{change:+.1%}",
            delta_color="off" if unchanged else "inverse" if figure.less_is_better else "normal",
            delta_arrow="off" if unchanged else "auto",
            help=TERMS[figure.term],
            border=True,
        )
