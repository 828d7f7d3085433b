"""Mechanisms: why serving costs what it costs, one cause at a time."""

import streamlit as st

from dashboard import parts
from dashboard.data import TERMS, scenarios, studies

with st.sidebar:
    st.markdown("##### Attention and price by position")
    phase = st.segmented_control(
        "Phase", ["decode", "prefill"], default="decode", key="mp", bind="query-params", required=True, width="stretch",
        help=f"Prefill: {TERMS['prefill']} Decode: {TERMS['decode']}",
    )  # fmt: skip
    if phase == "decode":
        batch = st.select_slider(
            "Sequences per rank", studies.BATCHES, 64, key="mb", bind="query-params", help=TERMS["batch"]
        )
        drafts = st.select_slider(
            "Draft tokens (MTP)", (0, *studies.DRAFTS), 1, key="md", bind="query-params", help=TERMS["MTP"]
        )
    else:
        batch = st.select_slider(
            "Tokens of a chunk",
            (1024, 2048, 4096, 8192, 16384),
            4096,
            key="mc",
            bind="query-params",
            help=TERMS["chunk"],
        )
        drafts = 0
    gpus = scenarios.names()["gpus"]
    gpu = st.selectbox(
        "GPU of the parts and drafts", gpus, gpus.index("h200_sxm"), key="mg", bind="query-params"
    )
    st.markdown("##### Experts")
    ep = st.select_slider(
        "GPUs of the EP group", studies.RANKS, 32, key="mn", bind="query-params", help=TERMS["EP"]
    )
    sigma = st.slider(
        "Skew (sigma)", 0.0, 2.0, 1.0, 0.1, key="ms", bind="query-params", help=TERMS["popularity sigma"]
    )
    copies = st.select_slider(
        "Redundant experts",
        (0, 32, 64, 128, 256),
        32,
        key="mx",
        bind="query-params",
        help=TERMS["redundant experts"],
    )
    rho = st.slider(
        "Freshness (rho)", 0.0, 1.0, 0.9, 0.05, key="my", bind="query-params", help=TERMS["staleness rho"]
    )
    limit = st.slider(
        "Groups that a token may use", 1, 8, 4, key="ml", bind="query-params", help=TERMS["node limit"]
    )
    st.markdown("##### Drafts")
    context = st.select_slider("Context, tokens", studies.CONTEXTS, 4096, key="mk", bind="query-params")

st.title("Mechanisms")
st.markdown(
    "Four things decide what a token costs: how much **cache** it leaves behind, how far **attention** looks back, how "
    "evenly **experts** are chosen, and whether **drafts** come right."
)

with parts.mending():
    parts.beside(studies.position(phase, batch, drafts), studies.attention(phase, gpu, batch))
with parts.mending():
    parts.beside(studies.cache(), studies.speculation(gpu, context))
with parts.mending():
    parts.beside(studies.imbalance(ep, sigma, copies, rho), studies.nodes(limit))
