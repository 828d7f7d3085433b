"""Results of a sweep: a table, price against latency and throughput, and each point in What-if."""

import streamlit as st

from dashboard import parts
from dashboard.data import sweeps
from dashboard.data.problems import BadInput

UPLOADED = "an uploaded file"
ALL_ALIKE = "nothing"


def show() -> None:
    """Choose or upload a result, and look at it."""
    found = sweeps.found()
    left, right = st.columns(2, gap="medium", vertical_alignment="bottom")
    given = right.file_uploader(
        "Upload a sweep.parquet", ["parquet"], key="sweep_given", max_upload_size=50,
        help="What `tokenworks sweep SWEEP.yaml --out DIR` writes; it is read as data.",
    )  # fmt: skip
    names = [*([UPLOADED] if given is not None else []), *found]
    picked = left.selectbox(
        "Sweep", names, key=f"sweep_{given is not None}", disabled=not names, placeholder="no results found",
        help="Results under `out` where the dashboard was started, or the uploaded file.",
    )  # fmt: skip
    if not picked:
        st.info(
            "Run `tokenworks sweep SWEEP.yaml` where the dashboard was started, or upload its `sweep.parquet`.",
            icon=":material/grid_on:",
        )
        return
    with parts.mending("This is no result of a sweep"):
        raw = given.getvalue() if given is not None and picked == UPLOADED else found[picked].read_bytes()
        _result(sweeps.read(raw))


def _result(sweep: sweeps.SweepResult) -> None:
    table = sweeps.table(sweep)
    failed = int(sweep.points["error"].notna().sum())
    st.caption(f"{len(table):,} points, {failed:,} failed.")
    left, middle, right = st.columns(3, gap="medium")
    have = [name for name in sweeps.AGAINST if name in table]
    if have:
        latencies = [name for name in have if "p99" in name]
        speeds = [name for name in have if name not in latencies]
        chosen = [
            where.selectbox(label, offers, key=key)
            for where, label, offers, key in (
                (left, "Latency", latencies, "sweep_latency"), (middle, "Throughput", speeds, "sweep_speed"),
            )
            if offers
        ]  # fmt: skip
        by = right.selectbox("Coloured by", [*sweep.keys, ALL_ALIKE], key="sweep_by", format_func=_short)
        drawn = sweeps.charts(sweep, None if by == ALL_ALIKE else by, chosen)
        if len(drawn) == 2:
            parts.beside(*drawn)
        else:
            for one in drawn:
                parts.chart(one)
    st.markdown("#### Points")
    parts.table(table, "sweep")
    _open(sweep)


def _short(key: str) -> str:
    """A key as it fits into a field: its last section and name."""
    return ".".join(key.split(".")[-2:])


def _open(sweep: sweeps.SweepResult) -> None:
    """A point, chosen by its number, in What-if."""
    st.markdown("#### Open in What if")
    left, right = st.columns([1, 3], gap="medium", vertical_alignment="bottom")
    numbers = sweep.points["point"].tolist()
    row = left.selectbox(
        "Point", range(len(numbers)), key="sweep_point", format_func=lambda i: str(numbers[i])
    )
    said = ", ".join(f"{key} {value}" for key, value in sweep.points.iloc[row][sweep.keys].dropna().items())
    try:
        address = sweeps.what_if(sweep, row)
    except BadInput as problem:
        right.caption(parts.plain(f"{said}: {problem}"))
        return
    right.markdown(f"[{parts.plain(said) or 'The base'}](/what_if?{address.query})")
    if address.lost:
        st.caption(parts.plain(address.told))
