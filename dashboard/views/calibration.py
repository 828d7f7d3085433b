"""Calibration: measured kernels against the model that prices them."""

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, silicon

FIRST_PROFILE, FIRST_TABLE = "h200_sxm/sglang", "dsa_decode_block/fp8/kv_cache=fp8"

names = silicon.profiles()
with st.sidebar:
    first = names.index(FIRST_PROFILE) if FIRST_PROFILE in names else 0
    name = st.selectbox(
        "Profile", names, first, key="kp", bind="query-params", help="GPU and engine that were measured."
    )
    if name is None:
        st.stop()
    given = st.file_uploader(
        "Your measurements",
        ["jsonl"],
        key="records",
        max_upload_size=8,
        help="records.jsonl of `tokenworks calibrate run`: shown against this profile.",
    )

st.title("Calibration")
st.markdown(
    "Steps are priced by kernels that were **measured** on the GPU. Between and beyond the measured shapes a fitted "
    "roofline takes over; here is how well it does, and how close the kernels come to the hardware's limits."
)
if given is not None:
    with parts.mending("The uploaded measurements cannot be used"):
        parts.chart(silicon.compare(name, given.getvalue()))
keys = list(silicon.tables(name))
first = keys.index(FIRST_TABLE) if FIRST_TABLE in keys else 0
key = st.selectbox(
    "Operation",
    keys,
    first,
    key="ko",
    bind="query-params",
    help="Kernel family, precision, options, implementation.",
)
if key is not None:
    with parts.mending():
        parts.beside(*silicon.fit(name, key))
with parts.mending():
    parts.chart(silicon.held_out(name))
with st.expander("Where these measurements come from", icon=":material/info:"):
    for what, words in silicon.about(name).items():
        st.markdown(f"**{what}**: {words}")
    st.caption(TERMS["held-out error"])
