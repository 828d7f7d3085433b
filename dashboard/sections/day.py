"""A day by hour: load, workers up, cost, objectives missed and requests retried, of a plan's winner or a scenario."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import parts
from dashboard.data import plans, scenarios, services

WINNER = "the plan's winner"


def show(found: Mapping[str, Any] | None) -> None:
    """Choose whose day, simulate it, look at it. `found`: the answer to the page's question."""
    daily = found is not None and plans.day(found, follows=False, fails=False) is not None
    ready = scenarios.by_the_clock()
    names = [*([WINNER] if daily else []), *ready]
    left, middle, right = st.columns([3, 2, 2], gap="medium", vertical_alignment="bottom")
    picked = left.selectbox(
        "Whose day", names, key=f"day_{daily}",
        help="The plan that was found, if its load follows a day, or a scenario with a daily curve, autoscaling or "
        "failures. Upload others on Compare.",
    )  # fmt: skip
    own = picked == WINNER
    follows = middle.toggle("Workers follow the load", True, key="day_follows", disabled=not own)
    fails = right.toggle("GPUs fail", False, key="day_fails", disabled=not own)
    if not daily:
        st.caption(
            "To see the day of a plan, choose a daily load on the left, and plan."
            if found is None or not found["best"]
            else "This plan's load is the same all day. Choose a daily load on the left to plan for one."
        )
    if not picked:
        return
    text = plans.day(found, follows, fails) if own and found is not None else ready[picked]
    if text is None:
        return
    job = services.job(text)
    runs = job is not None and job.under_way
    button, words = st.columns([1.2, 4], vertical_alignment="center")
    if button.button("Simulate the day", type="primary", key="day_start", icon=":material/play_arrow:",
                     width="stretch", disabled=runs):  # fmt: skip
        parts.simulate([text], services.start)
        st.rerun()
    words.caption("Every request of the day is played: a million of them take a few minutes.")
    parts.watch({"The day": job} if job and runs else {})
    parts.ended("The day", job)
    if services.simulated(text) is not None:
        _result(services.shown("day", text))


def _result(shown: services.Shown) -> None:
    with parts.mending():
        charts = services.charts([shown], "day")
        if "day" not in charts:
            st.info("Nothing changed by the hour in this run.", icon=":material/schedule:")
            return
        columns = st.columns(5, gap="small")
        for column, (label, value) in zip(columns, services.day_totals(shown).items(), strict=True):
            column.metric(label, value, border=True)
        parts.chart(charts["day"])
