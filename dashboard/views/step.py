"""Step: where one forward step goes, what it waits for, and what its numbers rest on."""

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, scenarios, studies

WORDS = {
    "bound": "what it waits for",
    "priced_by": "where its seconds come from",
    "group": "part of the model",
}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CHUNKS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CONTEXTS = (0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

known = scenarios.every()
with st.sidebar:
    first = list(known).index(scenarios.FIRST[0]) if scenarios.FIRST[0] in known else 0
    name = st.selectbox(
        "Scenario",
        list(known),
        first,
        key="ss",
        bind="query-params",
        help="Its model, GPU and layout are used.",
    )
    phase = st.segmented_control(
        "Phase", ["decode", "prefill"], default="decode", key="sp", bind="query-params", required=True, width="stretch",
        help=f"Prefill: {TERMS['prefill']} Decode: {TERMS['decode']}",
    )  # fmt: skip
    if phase == "decode":
        batch = st.select_slider(
            "Sequences per rank", BATCHES, 64, key="sb", bind="query-params", help=TERMS["batch"]
        )
    else:
        batch = st.select_slider(
            "New tokens per rank", CHUNKS, 4096, key="sn", bind="query-params", help=TERMS["chunk"]
        )
    context = st.select_slider(
        "Context, tokens",
        CONTEXTS,
        4096,
        key="sc",
        bind="query-params",
        help="KV tokens that each sequence already has.",
    )
    by = st.radio(
        "Colours",
        list(WORDS),
        key="sby",
        bind="query-params",
        format_func=WORDS.__getitem__,
        help=TERMS["bound"],
    )

st.title("Step")
if name is None:
    st.info("There is no scenario.", icon=":material/info:")
    st.stop()
explained = None
with parts.mending():
    explained = studies.step(known[name], phase, batch, context)
if explained is None:
    st.stop()

seconds, memory = explained["step_s"], explained["memory"]
largest = max(explained["operations"], key=lambda one: one["seconds"])
st.markdown(
    f"One **{phase}** step of **{parts.plain(name)}** takes **{seconds * 1e3:.3g} ms** for "
    f"{explained['tokens']:,} tokens per rank. Most of it, {largest['share']:.0%}, goes to *{largest['name']}*, which "
    f"waits for **{largest['bound']}**. A GPU holds {memory['weights_gb']:.0f} GB of weights and "
    f"{memory['kv_cache_gb']:.0f} GB of KV cache ({memory['kv_tokens']:,} tokens)."
)
needed, room = memory["kv_tokens_needed"], memory["kv_tokens"]
if needed > room:
    times = f"{needed / room:,.3g} times the {room:,}" if room else "and there is no room for any"
    st.warning(
        f"**This step cannot run**: its sequences need {needed:,} KV tokens on a rank, {times} that the KV cache "
        "holds. It is priced all the same.",
        icon=":material/warning:",
    )
parts.chart(studies.shares(explained))
parts.chart(studies.waterfall(explained, by))
with st.sidebar:
    st.download_button(
        f"{parts.plain(name)} (YAML)", known[name].encode(), parts.file_name(name), "application/yaml", key="save",
        width="stretch", icon=":material/data_object:", on_click="ignore", help="Explain it with `tokenworks explain`.",
    )  # fmt: skip
