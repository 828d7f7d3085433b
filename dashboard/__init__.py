"""The dashboard: what serving costs, and why. A Streamlit app over `sim`."""
