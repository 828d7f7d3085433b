"""The app: its pages, and what happens where one fails."""

from pathlib import Path

import streamlit as st

from dashboard import parts

st.set_page_config(page_title="Tokenworks", page_icon=str(Path(__file__).parent / "icon.png"), layout="wide")
page = st.navigation(
    [
        st.Page("views/compare.py", title="Compare", icon=":material/balance:", default=True),
        st.Page("views/what_if.py", title="What if", icon=":material/tune:"),
        st.Page("views/capacity.py", title="Capacity", icon=":material/savings:"),
        st.Page("views/mechanisms.py", title="Mechanisms", icon=":material/settings:"),
        st.Page("views/step.py", title="Step", icon=":material/timeline:"),
        st.Page("views/calibration.py", title="Calibration", icon=":material/straighten:"),
        st.Page("views/validation.py", title="Validation", icon=":material/fact_check:"),
    ],
    position="top",
)
with parts.mending():
    page.run()
