"""What a reader of a run's figures should know of them: what one of them hides, and how well one seed knows them.

Bounds and their reasons: `notes.yaml`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.catalog.facts import values
from sim.cluster.record import RunRecord
from sim.cluster.staff import copies
from sim.result.books import Books
from sim.result.percentiles import BATCH_VALUES, BATCHES, FIGURES
from sim.result.statistics import is_stable
from sim.serving.handover import HandoverRules
from sim.units import MILLISECOND_S

FILE: Final = Path(__file__).with_name("notes.yaml")
LABELS: Final = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "end to end"}
NEEDED: Final = {figure: BATCHES * each for figure, each in zip(FIGURES, BATCH_VALUES, strict=True)}
"""Requests that an interval of each figure takes."""


def chance_notes(record: RunRecord, run: Mapping[str, Any]) -> Iterator[str]:
    """How far another seed may be from this one, by the JSON of the run: percentiles without an interval or with a wide
    one, and a load that was drawn unlike the asked one."""
    yield from _no_interval(run)
    yield from _wide_intervals(run["latency"])
    yield from _drawn_load(record, run["requests"]["arrived"])


def _no_interval(run: Mapping[str, Any]) -> Iterator[str]:
    latencies, requests = run["latency"], run["requests"]["completed"]
    if all(latencies[name]["p99"] is None for name in LABELS):
        return
    if run["stable"] is None:
        yield (
            f"percentiles are those of {requests:,} requests and one seed, without confidence intervals, since the "
            "work ends: compare seeds (`--seed`)"
        )
    elif requests < NEEDED["p99"]:
        all_of_them = requests < NEEDED["p50"]
        figures, needed = ("percentiles", "p50") if all_of_them else ("p99", "p99")
        more = f", {NEEDED['p99']:,} for p99" if all_of_them else ""
        yield (
            f"too short for confidence intervals of {figures}: {requests:,} requests of one seed, {NEEDED[needed]:,} "
            f"are needed{more}; run longer, or compare seeds (`--seed`)"
        )


def _wide_intervals(latencies: Mapping[str, Any]) -> Iterator[str]:
    widest, wide = _bounds()["chance"]["widest_interval"], []
    for name, label in LABELS.items():
        for figure, ends in (latencies[name]["ci"] or {}).items():
            value = latencies[name][figure]
            if ends and figure != "mean" and ends[1] - ends[0] > widest * value:
                low, high = map(_seconds, ends)
                wide.append(f"{label} {figure} {_seconds(value)} ({low} to {high})")
    if wide:
        yield (
            f"one seed does not tell these well: their 95% confidence intervals span more than {widest:.0%} of them: "
            f"{', '.join(wide)}; run longer, or compare seeds (`--seed`)"
        )


def _drawn_load(record: RunRecord, arrived: int) -> Iterator[str]:
    """Of arrivals with one rate: what came between warm-up and last arrival, over that time."""
    arrivals, came_s = record.scenario.workload.arrivals, _requests(record).arrivals_s()
    asked = arrivals and (arrivals.poisson or arrivals.gamma)
    if not asked or came_s is None or not arrived or came_s[1] <= record.scenario.warmup_s:
        return
    drawn = arrived * copies(record) / (came_s[1] - record.scenario.warmup_s)
    off = drawn / asked.rate_per_s - 1
    if abs(off) > _bounds()["chance"]["drawn_load"]:
        yield (
            f"seed {record.seed} drew {drawn:.3g} requests/s where {asked.rate_per_s:g} were asked for ({off:+.1%}): "
            "the figures are those of the drawn load; a longer run comes closer"
        )


def handover_notes(record: RunRecord, known: Books, rules: HandoverRules) -> Iterator[str]:
    """Where the first token waits for the prefill side's answer while the decode side goes on, TPOT counts only what
    the client still waits for: how long a token takes there is told beside."""
    if not rules.answers_between_steps or rules.first_token == "received":
        return
    totals, bounds = known.totals, _bounds()["handover"]
    if not totals.decoded_tokens or is_stable(record, known) is False:
        return
    token_s, tpot_s = totals.decoding_s / totals.decoded_tokens, known.percentiles("tpot_s", True)["mean"]
    wait_s = totals.breakdown_s["first_step_s"] / totals.completed
    if tpot_s is None or tpot_s >= (1 - bounds["shorter_tpot"]) * token_s:
        return
    if wait_s > bounds["longer_than_joining"] * rules.poll_every_steps * token_s:
        yield (
            f"TPOT (mean {_seconds(tpot_s)}) is less than a token takes in the decode pool, {_seconds(token_s)} by its "
            "own steps: the first token waits for the prefill side's answer until "
            f"{_seconds(wait_s)} after its KV has come, and the next ones are generated meanwhile. TTFT is longer by "
            "that and TPOT shorter, a habit of SGLang (`scheduling.waits_for_prefill_answer`)"
        )


def _requests(record: RunRecord) -> Any:
    return record.requests if record.summary is None else record.summary


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value / MILLISECOND_S:.3g} ms"


@cache
def _bounds() -> Mapping[str, Any]:
    content: Mapping[str, Any] = values(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    return content
