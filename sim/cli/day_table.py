"""A day by hour, on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from sim.cli.terminal import number, percent, seconds, usd

Json = Mapping[str, Any]


def day(run: Json) -> Table:
    """One line per hour of a run's `hours`: load, workers up, cost, objectives missed, requests retried.

    Columns without any value are left out: retries and failures where nothing fails, misses where nothing is promised.
    """
    hours = run["hours"]
    roles = [*hours[0]["workers"]] if hours else []
    columns: list[tuple[str, Sequence[str | None]]] = [
        ("hour", [str(h["hour"]) for h in hours]),
        ("requests/s", [number(h["requests_per_s"]) for h in hours]),
        *((f"{_staff(role)} up", [number(h["workers"][role]) for h in hours]) for role in roles),
        ("GPU-hours", [number(h["gpu_hours"]) for h in hours]),
        ("cost", [usd(h["usd"]) for h in hours]),
        ("per million", [usd(h["usd_per_million"]) for h in hours]),
        ("TTFT p99", [seconds(h["ttft_s"]["p99"]) for h in hours]),
        ("TPOT p99", [seconds(h["tpot_s"]["p99"]) for h in hours]),
        ("missed", [None if h["missed_share"] is None else percent(h["missed_share"]) for h in hours]),
        ("retried", [number(h["retried"]) if h["retried"] else None for h in hours]),
        ("workers failed", [number(h["failures"]) if h["failures"] else None for h in hours]),
    ]
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    told = [(title, cells) for title, cells in columns if any(cell is not None for cell in cells)]
    for title, _ in told:
        table.add_column(title, justify="right")
    for row in zip(*(cells for _, cells in told), strict=True):
        table.add_row(*(cell or "-" for cell in row))
    return table


def _staff(role: str) -> str:
    return "workers" if role == "serve" else f"{role} workers"
