"""What several pages show alike: a chart with its words and table, a problem, a simulation under way, downloads."""

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from numbers import Real
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data import TERMS, Chart, meaning
from dashboard.data.headline import Figure, digits
from dashboard.data.problems import LONGEST, BadInput
from dashboard.jobs import Busy, Job

LOG: Final = logging.getLogger("tokenworks.dashboard")
POLL_S: Final = 0.5
"""Seconds between looks at a simulation."""
LEAST_CHANGE: Final = 0.0005
"""A change that a person would call none."""
TENFOLD: Final = 9.0
"""A change from which on it is told as a factor."""
LONG: Final = 20
"""Letters of a word in a table that may be broken."""
MOST_ROWS, WHOLE_ROWS = 200, 30
"""Rows of a table on a page; from how many on it scrolls."""
MARKDOWN: Final = re.compile(r"[\\`*_{}\[\]()<>#+.!|~$^&-]")
"""What Markdown may take for its own."""
FIRST_TOKEN: Final = (
    "Where the time to the first token goes: the queue, the prefill, the KV cache's way to the decode workers, waits "
    "for room, and the first step there."
)
PER_ROW: Final = 5
"""Tiles beside each other."""
STYLE: Final = """<style>
div.long-table { max-height: 26rem; overflow-y: auto; }
table.numbers { border-collapse: collapse; width: 100%; font-size: 0.8rem; font-variant-numeric: tabular-nums; }
table.numbers th, table.numbers td { padding: 0.3rem 0.3rem; border-bottom: 1px solid rgba(128, 136, 150, 0.35);
  text-align: left; vertical-align: bottom; }
table.numbers th { font-weight: 600; opacity: 0.75; }
table.numbers td.number { text-align: right; white-space: nowrap; }
table.numbers td.long, table.numbers th.long { overflow-wrap: anywhere; }
</style>"""


def chart(one: Chart) -> None:
    """A figure with its title, its sentence, and the table behind it."""
    _words(one)
    _figure(one)
    _numbers(one)


def beside(*charts: Chart) -> None:
    """Charts in a row: their figures on one line whatever the length of their sentences, and equally high."""
    height = max(one.figure.layout.height for one in charts)
    for show in (_words, partial(_figure, height=height)):
        for column, one in zip(st.columns(len(charts), gap="medium"), charts, strict=True):
            with column:
                show(one)
    _numbers(*charts)


def _words(one: Chart) -> None:
    explained = "  \n".join(f"**{word}**: {TERMS[word]}" for word in one.terms)
    st.markdown(f"#### {plain(one.title)}", help=explained or None)
    st.caption(one.says)


def _figure(one: Chart, height: int | None = None) -> None:
    st.plotly_chart(
        one.figure, key=one.key, height=height or "content", alt=one.says,
        config={"displaylogo": False, "displayModeBar": False},
    )  # fmt: skip


def _numbers(*charts: Chart) -> None:
    """The tables behind charts, over the whole width of the page."""
    filled = [one for one in charts if len(one.table)]
    if not filled:
        return
    with st.expander("The numbers"):
        for one in filled:
            if len(filled) > 1:
                st.markdown(f"**{plain(one.title)}**")
            table(one.table, one.key)


def table(data: pd.DataFrame, name: str) -> None:
    """A table, its first rows where it is long, and a download of all of it."""
    rows(data.head(MOST_ROWS))
    if len(data) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS} of {len(data):,} rows; the CSV file has all.")
    st.download_button(
        "CSV", data.to_csv(index=False).encode(), f"{name}.csv", "text/csv", key=f"csv-{name}",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def rows(data: pd.DataFrame) -> None:
    """A table with its headings explained."""
    st.html(html_table(data))


def html_table(data: pd.DataFrame) -> str:
    """The table as HTML: headings wrap, nothing is cut, and every text is shown as it is."""
    columns = [str(column) for column in data.columns]
    head = "".join(f"<th{_title(column)}>{_breakable(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(_cell(column, value) for column, value in zip(columns, row, strict=True))}</tr>"
        for row in data.itertuples(index=False)
    )
    kind = "long-table" if len(data) > WHOLE_ROWS else "whole-table"
    return (
        f"{STYLE}<div class='{kind}'><table class='numbers'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _title(column: str) -> str:
    said = meaning(column)
    kind = ' class="long"' if max(map(len, column.split() or [""])) > LONG else ""
    return kind + (f' title="{escape(said, quote=True)}"' if said else "")


def _breakable(column: str) -> str:
    """A heading that may be broken after the dots and underscores of a key."""
    return re.sub(r"(?<=[._])(?=\w)", "<wbr>", escape(column)) if "." in column else escape(column)


def _cell(column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "<td>-</td>"
    if isinstance(value, bool | np.bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, Real):
        return f"<td class='number'>{f'{value:.1%}' if _is_share(column) else digits(float(value))}</td>"
    text = str(value)
    kind = " class='long'" if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def _is_share(column: str) -> bool:
    return column in ("load", "bias") or column.endswith("error") or "share" in column


def problem(message: str, title: str) -> None:
    """What is wrong, as text: nothing in `message` is taken for Markdown, and its columns keep their places."""
    st.error(f"{title}:", icon=":material/error:")
    st.code(message, language=None, wrap_lines=True)


@contextmanager
def mending(title: str = "This cannot be computed") -> Iterator[None]:
    """Inside, what goes wrong becomes a message on the page instead of an end of it.

    What the user can mend is told in full; what nobody expected in a sentence, and in the log with its traceback.
    """
    try:
        yield
    except BadInput as wrong:
        problem(str(wrong), title)
    except Exception as error:
        LOG.exception("a page failed")
        unexpected(error)


def unexpected(error: Exception) -> None:
    """One sentence about a defect of ours, and a way on."""
    problem(
        f"{type(error).__name__}: {error}"[:LONGEST],
        "Something failed here that should not. Change what is set on the left, or choose another page; "
        "the terminal that runs the dashboard has the details. Please report them",
    )


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
        with mending():
            for name, job in running.items():
                _bar(name, job)

    bars()


def _bar(name: str, job: Job) -> None:
    done, total = job.progress
    if not job.under_way:
        st.rerun()
    words = f"{done:,} of {total:,} requests" if total else "preparing"
    if job.state == "waiting":
        words = "waiting for its turn"
    elif total and done == total:
        words = "writing its results"
    bar, button = st.columns([6, 1], vertical_alignment="center")
    bar.progress(done / total if total else 0.0, text=f"{plain(name)}: {words}")
    if button.button("Cancel", key=f"cancel-{name}", icon=":material/stop:"):
        job.cancel()
        st.rerun()


def ended(name: str, job: Job | None) -> None:
    """What a simulation that gave no result has to say."""
    if job and job.state == "failed":
        problem(job.message, f"{plain(name)}: the simulation failed")
    elif job and job.state == "cancelled":
        st.info(f"{plain(name)}: cancelled.", icon=":material/stop:")


def plain(name: str) -> str:
    """A name as Markdown that shows it as it is."""
    return MARKDOWN.sub(r"\\\g<0>", name).replace(":", ":\u2060")


def figures(
    shown: Sequence[Figure],
    changes: Sequence[tuple[Figure, Figure]] = (),
    estimates: Sequence[Figure] = (),
) -> None:
    """Figures side by side, each with its change (now, before); where there is none, with its estimate beside."""
    for first in range(0, len(shown), PER_ROW):
        columns = st.columns(PER_ROW, gap="small")
        for column, i in zip(columns, range(first, min(first + PER_ROW, len(shown))), strict=False):
            change = changes[i][0].change(changes[i][1]) if changes else None
            said = (
                None if change is None else f"{change:+.1%}" if change < TENFOLD else f"x {change + 1:,.0f}"
            )
            if not changes and estimates and estimates[i].text != shown[i].text:
                said = f"est. {estimates[i].text}"
            unchanged = change is None or abs(change) < LEAST_CHANGE
            column.metric(
                shown[i].label,
                shown[i].text,
                said,
                delta_color="off" if unchanged else "inverse" if shown[i].less_is_better else "normal",
                delta_arrow="off" if unchanged else "auto",
                help=shown[i].says,
                border=True,
                height="stretch",
            )
