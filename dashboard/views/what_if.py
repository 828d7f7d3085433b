"""What if: move a slider, see what it does to speed and price; simulate, pin, share, save."""

import time
from typing import Any

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, headline, launches, scenarios, services
from dashboard.data.problems import BadInput
from dashboard.settings import (
    CHOICES,
    DEFAULTS,
    LIMITS,
    OWN_PRICE,
    decode,
    drafts_by,
    encode,
    expected,
    scenario_of,
    settings_of,
    valid,
    wrong,
)

BASELINE = "base"  # query parameter of the pinned baseline

offered = scenarios.names()
choices = dict[str, list[str]]()
# Looked at before the widgets are, which take what they cannot use out of the address.
asked = {key: st.query_params[key] for key in DEFAULTS if key in st.query_params}


def pick(key: str, label: str, options: list[str], **more: Any) -> None:
    """A choice that stands in the URL."""
    choices[key] = options
    chosen = options.index(str(DEFAULTS[key])) if DEFAULTS[key] in options else 0
    st.selectbox(label, options, chosen, key=key, bind="query-params", **more)


def slide(key: str, label: str, **more: Any) -> None:
    """A number that stands in the URL, in a field for any value of it, and a slider beside for the usual ones."""
    left, right = st.columns([5, 4], gap="small", vertical_alignment="bottom")
    least, most = LIMITS[key]
    whole = isinstance(least, int)
    value = right.number_input(
        label, least, most, DEFAULTS[key], 1 if whole else 0.1, "%d" if whole else "%g",
        key=key, bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    beside = f"{key}_slider"
    if st.session_state.get(beside, value) != value:
        st.session_state[beside] = value

    def moved() -> None:
        st.session_state[key] = st.session_state[beside]

    offers = sorted({*CHOICES[key], value})
    left.select_slider(label, offers, value, key=beside, on_change=moved, format_func=short, **more)


def short(value: float) -> str:
    """A number above a slider's knob, where there is little room."""
    return f"{value:.10g}"


def take_command() -> None:
    """The settings of the pasted launch command, before the widgets are drawn that show them."""
    st.session_state["launch_told"], st.session_state["launch_problem"] = [], ""
    try:
        pasted = launches.read(st.session_state["launch"], st.session_state["g"])
    except BadInput as wrong_command:
        st.session_state["launch_problem"] = str(wrong_command)
        return
    for key, value in settings_of(pasted.scenario).items():
        if (
            key not in st.session_state
        ):  # of pools that are not drawn yet, which no widget writes into the address
            st.query_params[key] = str(value)
        st.session_state[key] = value
    st.session_state["launch_told"] = list(pasted.not_understood)


with st.sidebar:
    st.markdown("##### Load")
    slide("r", "Requests/s", help="Arrivals without memory (Poisson), mean rate.")
    slide("i", "Input tokens", help="Mean prompt length.")
    slide("o", "Output tokens", help="Mean answer length.")
    slide("h", "Cache hits, %", help=TERMS["cache hit"])
    st.markdown("##### Model and machine")
    pick("m", "Model", offered["models"])
    pick("g", "GPU", offered["gpus"])
    tiers = [*scenarios.tiers(st.session_state["g"]), OWN_PRICE]
    pick("t", "Price tier", tiers, help=TERMS["price tier"])
    if st.session_state["t"] == OWN_PRICE:
        st.number_input(
            "USD per GPU-hour", *LIMITS["u"], DEFAULTS["u"], 0.1, "%g", key="u", bind="query-params"
        )
    with st.expander("Layout", expanded=True):
        st.segmented_control(
            "Prefill and decode", CHOICES["k"], default=DEFAULTS["k"], key="k", bind="query-params", required=True,
            width="stretch", help=f"Separate: {TERMS['disaggregated']} Joint: {TERMS['aggregated']}",
        )  # fmt: skip
        pools = {"s": "Workers"} if st.session_state["k"] == "joint" else {"p": "Prefill", "d": "Decode"}
        for letter, title in pools.items():
            st.markdown(f"###### {title}", help=TERMS.get(title.lower()))
            slide(f"{letter}w", "Workers", help="Copies of this layout that share the load.")
            slide(f"{letter}g", "GPUs each", help="GPUs of one worker.")
            slide(f"{letter}t", "TP", help=f"Of the attention. {TERMS['TP']} {TERMS['attention DP']}")
        st.toggle(
            "Experts spread over all GPUs (EP)",
            DEFAULTS["ep"],
            key="ep",
            bind="query-params",
            help=TERMS["EP"],
        )
        slide("b", "Batch per GPU", help=f"At most. {TERMS['batch']}")
    with st.expander("Formats and drafts"):
        pick("e", "Engine", offered["engines"], help="Thresholds, overheads and the measured kernels.")
        pick("w", "Weights", list(CHOICES["w"]))
        pick("c", "KV cache", list(CHOICES["c"]), help=TERMS["KV cache"])
        drafter = drafts_by(st.session_state.get("z", DEFAULTS["z"]))
        slide("d", f"Drafts ({drafter})", help=TERMS[drafter])
        st.text_input(
            "Other keys", DEFAULTS["z"], key="z", bind="query-params",
            help="Keys of the scenario that no slider has, with commas between, such as "
            "`deployment.serve.chunk_tokens=1024`. A launch command fills them in.",
        )  # fmt: skip
    with st.expander("Experts"):
        slide("x", "Replicas", help=TERMS["redundant experts"])
        slide("s", "Skew (sigma)", help=TERMS["popularity sigma"])
        slide("y", "Freshness (rho)", help=TERMS["staleness rho"])
        slide("l", "Group limit", help=f"{TERMS['node limit']} 0: no limit.")
    slide("v", "Spread", help="Of both lengths, standard deviation over mean; 0 makes them constant.")

settings = {key: st.session_state.get(key, value) for key, value in DEFAULTS.items()}
st.title("What if")
refused = [
    f"{key}={said}: expected {expected(key, choices.get(key))}; {settings[key]} is used"
    for key, said in asked.items()
    if not valid(key, said, choices.get(key))
]
refused += [f"{BASELINE}: {words}" for words in wrong(st.query_params.get(BASELINE, ""))]
if refused:
    parts.problem("\n".join(refused), "The address of this page holds what cannot be used")

with st.expander("From a launch command", icon=":material/terminal:"):
    st.text_area(
        "Launch command of SGLang, vLLM or TensorRT-LLM; of several, those of all pools", key="launch", height=110,
        placeholder="python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.2 --tp-size 8 ...",
        help="It sets model, engine, layout, formats and drafts. What it cannot say (load, price, GPU) stays as it is "
        "set on the left. No file of the server's machine is read: write one into the text, `cat > extra.yml <<EOF`.",
    )  # fmt: skip
    st.button("Read", key="read", icon=":material/input:", on_click=take_command)
    if st.session_state.get("launch_problem"):
        parts.problem(st.session_state["launch_problem"], "The command cannot be read")
    elif st.session_state.get("launch_told"):
        told = "\n".join(f"- {parts.plain(one)}" for one in st.session_state["launch_told"])
        st.warning(f"Not understood, or not modelled:\n{told}", icon=":material/warning:")
    elif "launch_told" in st.session_state:
        st.success("Every flag that matters is in the settings on the left.", icon=":material/check:")

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

parts.watch({"Simulation": job} if job and runs else {})
parts.ended("Simulation", job)
now = services.shown("this", text)
then = services.shown("baseline", base_text) if base is not None else None
alike = bool(now.run and (then is None or then.run))
figures = headline.simulated if alike else headline.estimated  # what changes are taken between
if now.run:
    st.markdown(
        ":green-badge[simulated] Percentiles and waiting times are below."
        + ("" if alike else " The baseline is not simulated: changes are those of the estimates.")
    )
parts.figures(
    headline.simulated(now) if now.run else headline.estimated(now),
    list(zip(figures(now), figures(then), strict=True)) if then is not None else [],
    headline.estimated(now) if now.run else [],
)
if idle := headline.bought(now):
    st.warning(idle, icon=":material/warning:")
if not state.stable:
    st.warning(
        f"**Overloaded**: {state.load:.0%} of what this deployment can serve "
        f"({state.capacity_requests_per_s:.3g} requests/s, limited by {state.limit}). The figures are those at "
        "capacity.",
        icon=":material/warning:",
    )
if state.doubts and not now.run:
    told = " ".join(parts.plain(doubt) for doubt in state.doubts)
    st.info(
        f"**The estimate is rough here.** {told} A simulation may differ by more than 10%.",
        icon=":material/info:",
    )

compared = [now, *([then] if then is not None else [])]
with parts.mending():
    charts = services.charts(compared, "throughput", "prices")
    parts.beside(charts["throughput"], charts["prices"])
if now.run:
    st.markdown("#### Estimate and simulation")
    st.caption("The same service by equations and by playing every request; percentiles need the latter.")
    with parts.mending():
        both = [services.Shown("this", now.scenario, state), now]
        parts.table(services.overview(both), "estimate-simulation")
    with parts.mending():
        charts = services.charts([now], "latency", "timeline")
        parts.beside(*charts.values())
    st.caption(parts.FIRST_TOKEN)
    parts.rows(services.first_tokens([now]))
with parts.mending():
    charts = services.charts([now], "memory") | services.charts(compared, "provenance")
    parts.beside(charts["memory"], charts["provenance"])
with st.expander("The scenario"):
    st.code(text, language="yaml")
with st.expander("Launch commands"):
    able = launches.engines()
    first = able.index(settings["e"]) if settings["e"] in able else 0
    engine = st.segmented_control("Engine", able, default=able[first], key="written_for", required=True)
    with parts.mending("This engine cannot be started so"):
        commands, cannot = launches.commands(text, engine)
        st.code(commands, language="bash")
        for said in cannot:
            st.caption(f"The commands cannot say: {parts.plain(said)}")
st.caption(f"Computed in {(time.perf_counter() - began) * 1e3:.0f} ms.")
