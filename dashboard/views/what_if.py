"""What if: move a slider, see what it does to speed and price; simulate, pin, share, save."""

import time
from typing import Any

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, scenarios, services
from dashboard.settings import CHOICES, DEFAULTS, OWN_PRICE, decode, encode, scenario_of

BASELINE = "base"  # query parameter of the pinned baseline

offered = scenarios.names()


def pick(key: str, label: str, options: list[str], **more: Any) -> None:
    """A choice that stands in the URL."""
    chosen = options.index(str(DEFAULTS[key])) if DEFAULTS[key] in options else 0
    st.selectbox(label, options, chosen, key=key, bind="query-params", **more)


def slide(key: str, label: str, **more: Any) -> None:
    """A slider that stands in the URL."""
    st.select_slider(label, CHOICES[key], DEFAULTS[key], key=key, bind="query-params", **more)


with st.sidebar:
    st.markdown("##### Load")
    slide("r", "Requests per second", help="Arrivals without memory (Poisson), mean rate.")
    slide("i", "Input tokens", help="Mean prompt length.")
    slide("o", "Output tokens", help="Mean answer length.")
    st.slider(
        "Cache hits, %", 0, 95, int(DEFAULTS["h"]), 5, key="h", bind="query-params", help=TERMS["cache hit"]
    )
    st.markdown("##### Model and machine")
    pick("m", "Model", offered["models"])
    pick("g", "GPU", offered["gpus"])
    tiers = [*scenarios.tiers(st.session_state["g"]), OWN_PRICE]
    pick("t", "Price tier", tiers, help=TERMS["price tier"])
    if st.session_state["t"] == OWN_PRICE:
        st.number_input(
            "USD per GPU-hour", 0.05, 100.0, float(DEFAULTS["u"]), 0.1, key="u", bind="query-params"
        )
    with st.expander("Layout", expanded=True):
        st.segmented_control(
            "Prefill and decode", CHOICES["k"], default=DEFAULTS["k"], key="k", bind="query-params", required=True,
            width="stretch", help=f"Separate: {TERMS['disaggregated']} Joint: {TERMS['aggregated']}",
        )  # fmt: skip
        if st.session_state["k"] == "joint":
            slide("sw", "Workers")
            slide("sg", "GPUs of a worker")
            slide("st", "TP of the attention", help=f"{TERMS['TP']} {TERMS['attention DP']}")
        else:
            slide("pw", "Prefill workers", help=TERMS["prefill"])
            slide("pg", "GPUs of a prefill worker")
            slide("pt", "TP, prefill", help=f"{TERMS['TP']} {TERMS['attention DP']}")
            slide("dw", "Decode workers", help=TERMS["decode"])
            slide("dg", "GPUs of a decode worker")
            slide("dt", "TP, decode", help=f"{TERMS['TP']} {TERMS['attention DP']}")
        st.toggle(
            "Experts spread over all GPUs (EP)",
            DEFAULTS["ep"],
            key="ep",
            bind="query-params",
            help=TERMS["EP"],
        )
        slide("b", "Batch cap per GPU", help=TERMS["batch"])
    with st.expander("Formats and drafts"):
        pick("e", "Engine", offered["engines"], help="Thresholds, overheads and the measured kernels.")
        pick("w", "Weights", list(CHOICES["w"]))
        pick("c", "KV cache", list(CHOICES["c"]), help=TERMS["KV cache"])
        slide("d", "Draft tokens (MTP)", help=TERMS["MTP"])
    with st.expander("Experts"):
        slide("x", "Redundant experts", help=TERMS["redundant experts"])
        st.slider(
            "Skew (sigma)",
            0.0,
            2.0,
            DEFAULTS["s"],
            0.05,
            key="s",
            bind="query-params",
            help=TERMS["popularity sigma"],
        )
        st.slider(
            "Freshness (rho)",
            0.0,
            1.0,
            DEFAULTS["y"],
            0.05,
            key="y",
            bind="query-params",
            help=TERMS["staleness rho"],
        )
        slide("l", "Group limit (0: none)", help=TERMS["node limit"])
    slide(
        "v", "Spread of lengths", help="Standard deviation over mean of both lengths; 0 makes them constant."
    )

settings = {key: st.session_state.get(key, value) for key, value in DEFAULTS.items()}
st.title("What if")

began = time.perf_counter()
text, state = "", None
with parts.mending():
    text = scenarios.spell(scenario_of(settings))
    state = services.estimate(text)
pinned = decode(st.query_params[BASELINE]) if BASELINE in st.query_params else None
base_text, base = "", None
if pinned is not None:
    with parts.mending():
        base_text = scenarios.spell(scenario_of(pinned))
        base = services.estimate(base_text)

actions = st.columns([1.2, 1.2, 1.2, 1.2, 2.4], vertical_alignment="center")
job = services.job(text) if text else None
runs = job is not None and job.under_way
if actions[0].button("Simulate", type="primary", key="simulate", icon=":material/play_arrow:", width="stretch",
                     disabled=state is None or runs, help=TERMS["simulation"]):  # fmt: skip
    parts.simulate([text], services.start)
    st.rerun()
if actions[1].button("Pin", key="pin", icon=":material/keep:", width="stretch", disabled=state is None,
                     help="Make this the baseline that changes are shown against."):  # fmt: skip
    st.query_params[BASELINE] = encode(settings)
    st.rerun()
if actions[2].button(
    "Unpin", key="unpin", icon=":material/keep_off:", width="stretch", disabled=pinned is None
):
    del st.query_params[BASELINE]
    st.rerun()
actions[3].download_button(
    "YAML", text.encode(), "scenario.yaml", "application/yaml", key="yaml", icon=":material/download:",
    on_click="ignore", disabled=not text, width="stretch",
    help="This scenario as a file; `tokenworks run` on it gives the numbers of the simulation here.",
)  # fmt: skip
actions[4].caption(
    "Estimates follow the sliders at once. The address of this page holds all of it: copy it to share."
)
if state is None:
    st.stop()

parts.figures(services.headline(state), services.headline(base) if base is not None else ())
if not state.stable:
    st.warning(
        f"**Overloaded**: {state.load:.0%} of what this deployment can serve "
        f"({state.capacity_requests_per_s:.3g} requests/s, limited by {state.limit}). The figures are those at "
        "capacity.",
        icon=":material/warning:",
    )
parts.watch({"Simulation": job} if job and runs else {})
parts.ended("Simulation", job)

now = services.shown("this", text)
compared = [now, *([services.shown("baseline", base_text)] if base is not None else [])]
charts = services.charts(compared, "throughput", "prices", "provenance")
alone = services.charts([now], "latency", "timeline", "memory")
parts.beside(charts["throughput"], charts["prices"])
if now.run:
    st.markdown("#### Estimate and simulation")
    st.caption("The same service by equations and by playing every request; percentiles need the latter.")
    both = [services.Shown("this", now.scenario, state), now]
    parts.table(services.overview(both), "estimate-simulation")
    parts.beside(alone["latency"], alone["timeline"])
parts.beside(alone["memory"], charts["provenance"])
with st.expander("The scenario"):
    st.code(text, language="yaml")
st.caption(f"Computed in {(time.perf_counter() - began) * 1e3:.0f} ms.")
