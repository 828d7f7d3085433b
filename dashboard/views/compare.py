"""Compare: scenarios side by side, with what public APIs charge."""

import streamlit as st

from dashboard import parts
from dashboard.data import scenarios, services
from dashboard.data.problems import BadInput

known = scenarios.every()
with st.sidebar:
    picked = st.multiselect(
        "Scenarios",
        list(known),
        [name for name in scenarios.FIRST if name in known],
        key="cs",
        bind="query-params",
        help="Deployments under a workload, each a YAML file. The first one is compared against.",
    )
    given = st.file_uploader(
        "Add a scenario",
        ["yaml", "yml"],
        key="given",
        max_upload_size=1,
        help="A scenario file; it is read as data and cannot name other files.",
    )

st.title("Compare")
if given is not None:
    with parts.mending("The uploaded scenario cannot be used"):
        name = scenarios.upload(given.name, given.getvalue())
        if name not in known:
            known = scenarios.every()
            st.success(f"Added as **{parts.plain(name)}**. Pick it on the left.", icon=":material/check:")
            st.button("Show it in the list", key="refresh")
if not picked:
    st.info("Pick a scenario on the left.", icon=":material/arrow_back:")
    st.stop()

# Asked before the results: what ends in between is still watched, and found at the next look.
jobs = {name: services.job(known[name]) for name in picked}
running = {name: job for name, job in jobs.items() if job and job.under_way}
shown, problems = [], dict[str, str]()
for name in picked:
    try:
        shown.append(services.shown(name, known[name]))
    except BadInput as problem:
        problems[name] = str(problem)
for name, message in problems.items():
    parts.problem(message, f"{parts.plain(name)} cannot be computed")
if not shown:
    st.stop()

missing = [one.name for one in shown if one.run is None and one.name not in running]
words, button = st.columns([4, 1], vertical_alignment="center")
words.markdown(
    "What each deployment yields and costs. **Estimates** come at once from equations for the steady state; "
    "**simulations** play every request and give percentiles."
)
if button.button(
    "Simulate", type="primary", disabled=not missing, key="simulate", icon=":material/play_arrow:", width="stretch",
    help="Runs the scenarios in the background; the page stays usable.",
):  # fmt: skip
    parts.simulate([known[name] for name in missing], services.start)
    st.rerun()
parts.watch(running)
for name, job in jobs.items():
    parts.ended(name, job)

overview = services.overview(shown)
parts.rows(overview)
for sentence in services.unlike(shown):
    st.caption(parts.plain(f"{sentence}."))

with parts.mending():
    charts = services.charts(shown, "throughput", "prices")
    parts.beside(charts["throughput"], charts["prices"])
with parts.mending():
    charts = services.charts(shown, "latency", "provenance")
    if "latency" in charts:
        parts.beside(charts["latency"], charts["provenance"])
    else:
        left, right = st.columns(2, gap="medium")
        with left:
            st.markdown("#### Latency percentiles")
            st.caption("How long users wait: this takes queues and bursts, which only the simulation has.")
            if running:
                st.info("Under way.", icon=":material/hourglass:")
            else:
                st.info("Press **Simulate**.", icon=":material/play_arrow:")
        with right:
            parts.chart(charts["provenance"])
if any(one.run for one in shown):
    st.caption(parts.FIRST_TOKEN)
    parts.rows(services.first_tokens(shown))

with st.sidebar:
    st.markdown("##### Save")
    st.download_button(
        "Table (CSV)", overview.to_csv(index=False).encode(), "comparison.csv", "text/csv", key="save-csv",
        icon=":material/table:", on_click="ignore", width="stretch",
    )  # fmt: skip
    simulated = [one for one in shown if one.run]
    st.download_button(
        "Report (HTML)", services.page(simulated) if simulated else b"", "comparison.html", "text/html",
        key="save-html", icon=":material/description:", on_click="ignore", width="stretch", disabled=not simulated,
        help="One file with the figures of what was simulated; needs no network.",
    )  # fmt: skip
    for one in shown:
        st.download_button(
            f"{parts.plain(one.name)} (YAML)", known[one.name].encode(), parts.file_name(one.name), "application/yaml",
            key=f"save-{one.name}", icon=":material/data_object:", on_click="ignore", width="stretch",
            help="Run it with `tokenworks run`.",
        )  # fmt: skip
