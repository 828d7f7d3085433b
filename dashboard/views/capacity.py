"""Capacity: traffic and promises in, the cheapest deployment out, with why the others lost."""

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, plans, scenarios
from dashboard.sections import day, sweep

offered = scenarios.names()
PERCENTILES = [50.0, 90.0, 95.0, 99.0]
CATALOG_S_TIER = "each GPU's default"
ALWAYS_THE_SAME, DAILY = "always the same", "DeepSeek's day"
PLAN, DAY, SWEEP = "Plan", "The day by hour", "Sweep results"

with st.sidebar:
    st.markdown("##### Traffic at the peak")
    rate = st.number_input("Requests/s", 0.01, 10_000.0, 20.0, 1.0, "%g", key="cap_rate", bind="query-params")
    through = st.selectbox(
        "Through the day", [ALWAYS_THE_SAME, DAILY], key="cap_day",
        help="The load of DeepSeek's own service by the hour: the rate above is that of its busiest hour, and the mean "
        "prices the tokens.",
    )  # fmt: skip
    prompt = st.number_input("Input tokens", 1, 200_000, 1000, 100, key="cap_in", bind="query-params")
    answer = st.number_input("Output tokens", 1, 50_000, 250, 50, key="cap_out", bind="query-params")
    spread = st.number_input(
        "Spread", 0.0, 5.0, 1.0, 0.1, "%g", key="cap_cv", bind="query-params",
        help="Of both lengths, standard deviation over mean; 0 makes them constant.",
    )  # fmt: skip
    hits = st.number_input(
        "Cache hits, %", 0, 99, 0, 5, key="cap_hits", bind="query-params", help=TERMS["cache hit"]
    )
    st.markdown("##### Promises")
    percentile = st.selectbox(
        "Percentile", PERCENTILES, 3, key="cap_at", format_func=lambda p: f"p{p:g}",
        help="Of every latency that is promised.",
    )  # fmt: skip
    ttft_s = st.number_input(
        "TTFT, s", 0.01, 600.0, 2.0, 0.1, "%g", key="cap_ttft", bind="query-params", help=TERMS["TTFT"]
    )
    tpot_ms = st.number_input(
        "TPOT, ms", 0.1, 10_000.0, 50.0, 5.0, "%g", key="cap_tpot", bind="query-params", help=TERMS["TPOT"]
    )
    st.markdown("##### What may be built")
    model = st.selectbox(
        "Model", offered["models"], offered["models"].index("deepseek-v3.2"), key="cap_model"
    )
    gpus = st.multiselect("GPUs", offered["gpus"], ["h200_sxm", "b200_sxm"], key="cap_gpus")
    shared = (
        [t for t in scenarios.tiers(gpus[0]) if all(t in scenarios.tiers(g) for g in gpus)] if gpus else []
    )
    tier = st.selectbox("Price tier", [CATALOG_S_TIER, *shared], key="cap_tier", help=TERMS["price tier"])
    drafts = st.multiselect("Drafts (MTP)", [0, 1, 2, 3], [0], key="cap_drafts", help=TERMS["MTP"])
    most = st.number_input("GPUs at most", 1, 10_000, 512, 8, key="cap_most", bind="query-params")

st.title("Capacity")
view = st.segmented_control(
    "View", [PLAN, DAY, SWEEP], default=PLAN, key="cap_view", bind="query-params", required=True,
    label_visibility="collapsed",
)  # fmt: skip
if view == SWEEP:
    sweep.show()
    st.stop()
text = ""
if not gpus or not drafts:
    st.info("Choose at least one GPU and one number of drafts on the left.", icon=":material/tune:")
else:
    with parts.mending():
        text = plans.question(
            {
                "rate": float(rate),
                "curve": plans.DAILY if through == DAILY else None,
                "input": int(prompt),
                "output": int(answer),
                "spread": float(spread),
                "hits": hits / 100,
                "model": model,
                "gpus": gpus,
                "drafts": drafts,
                "ttft_s": float(ttft_s),
                "tier": None if tier == CATALOG_S_TIER else tier,
                "tpot_s": tpot_ms / 1e3,
                "percentile": percentile,
                "most": int(most),
            }
        )
if view == DAY:
    day.show(plans.answer(text) if text else None)
    st.stop()
job = plans.job(text) if text else None
runs = job is not None and job.under_way
left, middle, right = st.columns([1.2, 1.2, 4], vertical_alignment="center")
if left.button("Plan", type="primary", key="plan", icon=":material/search:", width="stretch",
               disabled=not text or runs):  # fmt: skip
    parts.simulate([text], plans.start)
    st.rerun()
middle.download_button(
    "YAML", text.encode(), "plan.yaml", "application/yaml", key="cap_yaml", icon=":material/download:",
    on_click="ignore", disabled=not text, width="stretch",
    help="This question as a file; `tokenworks plan` on it gives the same answer.",
)  # fmt: skip
right.caption(
    "Layouts, ratios of prefill to decode and batch caps are searched: estimated, then simulated with queues."
)
parts.watch({"Plan": job} if job and runs else {})
parts.ended("Plan", job)
found = plans.answer(text) if text else None
if found is None:
    if not runs:
        st.info("Set the traffic and the promises on the left, then plan. It takes a minute or two.")
    st.stop()

best = found["best"]
for one in found["out_of_reach"]:
    st.error(
        parts.plain(f"{one['says']}.{' The closest plan is below.' if best else ''}"),
        icon=":material/block:",
    )
if best is None:
    st.error("No candidate holds.", icon=":material/block:")
    st.stop()
figures = st.columns(5, gap="small")
blended = best["usd_per_million"]["blended"]
for column, (label, value) in zip(
    figures,
    {
        "USD per hour": f"${best['usd_per_hour']:,.2f}",
        "USD per M tokens": f"${blended:.3g}",
        "GPUs paid for": f"{best['gpus_paid']:,}",
        "Unused of these": f"{best['stranded']:,}",
        "Replicas": f"{best['replicas']:,}",
    }.items(),
    strict=True,
):
    column.metric(label, value, border=True)
st.markdown(f"**{parts.plain(best['name'])}**")
if best.get("alone"):
    st.info(parts.plain(f"{best['alone']['says']}."), icon=":material/compress:")
kept = [
    f"{o['label']} {o['found_s']:.3g} s of {o['bound_s']:g} s" for o in best["objectives"] if o["found_s"]
]
st.caption(
    parts.plain(
        f"At full traffic: {'; '.join(kept)}. Fills first: {best['limited_by']} ({best['limit']}); relieved by "
        f"{best['relief'] or 'more of it'}."
    )
)
for one in found.get("gpu_prices", ()):
    st.caption(parts.plain(f"{one['says']}."))
with parts.mending():
    parts.rows(plans.plans(found))
with parts.mending():
    for chart in plans.charts(found):
        parts.chart(chart)
st.markdown("#### Why the others lost")
with parts.mending():
    parts.table(plans.candidates(found), "candidates")
st.markdown("#### Open in What if")
with parts.mending():
    linked = [(one["name"], plans.what_if(one)) for one in found["candidates"][:5]]
    for name, address in linked:
        st.markdown(f"- [{parts.plain(name)}](/what_if?{address.query})")
    for told in dict.fromkeys(address.told for _, address in linked if address.lost):
        st.caption(parts.plain(told))
scenario = plans.winner(found)
files = st.columns(2)
files[0].download_button(
    "Winner's scenario", (scenario or "").encode(), "scenario.yaml", "application/yaml", key="cap_winner",
    icon=":material/download:", on_click="ignore", width="stretch",
)  # fmt: skip
files[1].download_button(
    "Report", plans.report(found), "report.html", "text/html", key="cap_report", icon=":material/download:",
    on_click="ignore", width="stretch",
)  # fmt: skip
