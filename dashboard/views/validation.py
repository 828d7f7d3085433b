"""Validation: published measurements against what the simulator says about them."""

import streamlit as st

from dashboard import parts
from dashboard.data import validations

LABELS = {"engine": "Engine", "gpu": "GPU", "precision": "Precision", "model": "Model", "half": "Half"}
BY = list(LABELS)
# Filters, and the keys of their widgets.
KEYS = {"model": "v_model", "gpu": "gpu", "engine": "engine", "precision": "precision", "half": "v_half"}
SOURCES = {
    "InferenceX measurements": "https://github.com/SemiAnalysisAI/InferenceX",
    "DeepSeek open-infra-index": "https://github.com/deepseek-ai/open-infra-index",
    "DeepSeek-V3.2-Exp": "https://github.com/deepseek-ai/DeepSeek-V3.2-Exp",
    "SGLang on 96 H100": "https://lmsys.org/blog/2025-05-05-large-scale-ep/",
}

with st.sidebar:
    given = st.file_uploader(
        "A validation of yours",
        ["json"],
        key="validation",
        max_upload_size=16,
        help=f"The output of `{validations.COMMAND}`; shown instead of the shipped one.",
    )

st.title("Validation")
cases = None
if given is not None:
    with parts.mending("The uploaded validation cannot be used; the shipped one is shown"):
        cases = validations.read(given.getvalue())
if cases is None:
    cases = validations.digest()
if cases is None or cases.empty:
    st.info("No validation result is at hand. Make one, which takes some minutes, and drop it on the left:")
    st.code(validations.COMMAND, language="bash")
else:
    units = validations.units()
    with st.sidebar:
        metrics = sorted(cases.metric.unique(), key=[*units, *cases.metric].index)
        metric = st.selectbox(
            "Metric", metrics, key="vm", bind="query-params", format_func=lambda m: units.get(m, m)
        )
        by = st.selectbox("Colours", BY, key="vby", bind="query-params", format_func=LABELS.__getitem__)
        kept = cases
        for column, key in KEYS.items():
            values = sorted(kept[column].unique())
            chosen = st.multiselect(LABELS[column], values, key=key)
            kept = kept[kept[column].isin(chosen)] if chosen else kept
    mine = kept[(kept.metric == metric) & kept.error.notna()]
    if mine.empty:
        st.info("No case is left by these filters.", icon=":material/filter_alt_off:")
        st.stop()
    st.markdown(validations.headline(kept, metric))
    parts.chart(validations.scatter(kept, metric, by))
    parts.chart(validations.errors(kept, metric))
    banded = validations.bands(kept, metric)
    if not banded.empty:
        st.markdown("#### Cases with a band")
        st.caption(
            "Published figures of which was said beforehand how far off they may be, and why that far; those outside "
            "come first, with what is known of them. A limit (bound) has one end."
        )
        parts.table(banded.drop(columns=list(validations.TOLD)), "bands")
        for column in validations.TOLD:
            reasons = validations.band_reasons(banded, column)
            if not reasons.empty:
                parts.rows(reasons)
    st.markdown("#### By metric")
    st.caption(
        "Errors are relative: simulated / measured - 1. Bias is the median with its sign. Constants were fitted on one "
        "half of the deployments and judged on the other."
    )
    parts.table(validations.scores(kept), "scores")

st.markdown("Sources: " + ", ".join(f"[{name}]({address})" for name, address in SOURCES.items()) + ".")
