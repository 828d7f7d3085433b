"""What a trace is, in numbers: for people who want to see what their file was understood as."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.workload.prompts import Ints, Prompts
from sim.workload.recorded import Trace
from sim.workload.sessions import Sessions
from sim.workload.times import rate_per_s

PARTS: Final = 12
"""Of the span, of which rates and lengths are told one by one."""


def understood(trace: Trace | Sessions) -> dict[str, Any]:
    """The JSON of `tokenworks trace`. What a trace does not have is null.

    `columns`: what each role was read from; `time_unit`: s, ms, us, ns or dates, and `time_unit_told_by` why;
    `rate_per_s`: requests over the span; `input_tokens` and `output_tokens`: mean, p50, p99 and max; `seen_before`:
    share of the prompt tokens whose blocks an earlier prompt had, as a cache without end would find them;
    `over_time`: the same in equal parts of the span, in order; `lengths`: requests by doublings of tokens.
    """
    if isinstance(trace, Sessions):
        turns = [turn for session in trace.sessions for turn in session]
        prompts = Prompts.of(
            np.array([turn.input_tokens for turn in turns]), np.array([turn.output_tokens for turn in turns])
        )
        return {
            **_lengths(trace.name, "sessions", prompts),
            "sessions": len(trace.sessions),
            "block_tokens": trace.block_tokens,
        }
    known = trace.understood
    found = _lengths(trace.name, "clients" if known is None else "requests", trace.prompts)
    if trace.arrival_s is not None:
        found |= {"span_s": trace.span_s}
        found |= {"rate_per_s": rate_per_s(len(trace.prompts), trace.span_s) if trace.span_s else None}
    if known is not None:
        columns = known.columns.json()
        found |= {"columns": columns}
        found |= {"ignored": [name for name in known.names if name not in columns.values()]}
        if known.unit is not None:
            found |= {"time_unit": known.unit.name, "time_unit_told_by": known.unit.told_by}
    seen = _seen_before(trace.prompts) if trace.prompts.block_tokens else None
    return {
        **found,
        "block_tokens": trace.prompts.block_tokens,
        "seen_before": None if seen is None else int(seen.sum()) / int(trace.prompts.input_tokens.sum()),
        "over_time": _over_time(trace, seen),
        "notes": [*trace.notes, *filter(None, [trace.looks_like_times])],
    }


def _lengths(name: str, kind: str, prompts: Prompts) -> dict[str, Any]:
    """What every kind of trace has; the rest null."""
    missing = ("columns", "ignored", "time_unit", "time_unit_told_by", "span_s", "rate_per_s", "sessions")
    return {
        "trace": name,
        "kind": kind,
        "requests": len(prompts),
        **dict.fromkeys((*missing, "block_tokens", "seen_before")),
        "input_tokens": _statistics(prompts.input_tokens),
        "output_tokens": _statistics(prompts.output_tokens),
        "lengths": {
            "input_tokens": _by_doublings(prompts.input_tokens),
            "output_tokens": _by_doublings(prompts.output_tokens),
        },
        "over_time": [],
        "notes": [],
    }


def _by_doublings(tokens: Ints) -> list[dict[str, int]]:
    """Requests of 1, 2 to 3, 4 to 7, ... tokens, from the first of these that has any to the last."""
    if not len(tokens):
        return []
    powers, counts = np.unique(np.floor(np.log2(np.maximum(tokens, 1))).astype(int), return_counts=True)
    found = dict(zip(powers.tolist(), counts.tolist(), strict=True))
    return [
        {"from": 2**n, "to": 2 ** (n + 1) - 1, "requests": found.get(n, 0)}
        for n in range(min(found), max(found) + 1)
    ]


def _over_time(trace: Trace, seen: Ints | None) -> list[dict[str, Any]]:
    """Rate, mean lengths and share seen before in `PARTS` equal parts of the span; nothing where all come at once."""
    if trace.arrival_s is None or not trace.span_s:
        return []
    edges = np.linspace(0.0, trace.span_s, PARTS + 1)
    part = np.minimum(np.searchsorted(edges, trace.arrival_s, side="right") - 1, PARTS - 1)
    tokens = {"input_tokens": trace.prompts.input_tokens, "output_tokens": trace.prompts.output_tokens}
    found = []
    for n in range(PARTS):
        mine: NDArray[np.bool_] = part == n
        count, length_s = int(mine.sum()), float(edges[n + 1] - edges[n])
        means = {name: float(of[mine].mean()) if count else None for name, of in tokens.items()}
        share = (
            None
            if seen is None or not count
            else float(seen[mine].sum() / tokens["input_tokens"][mine].sum())
        )
        told = {"from_s": float(edges[n]), "requests": count, "requests_per_s": count / length_s}
        found.append({**told, **means, "seen_before": share})
    return found


def _statistics(tokens: Ints) -> dict[str, float] | None:
    if not len(tokens):
        return None
    p50, p99 = np.percentile(tokens, (50, 99)).tolist()
    return {"mean": float(tokens.mean()), "p50": p50, "p99": p99, "max": int(tokens.max())}


def _seen_before(prompts: Prompts) -> Ints:
    """Tokens of each prompt in blocks that an earlier prompt had: a hash stands for all before it."""
    assert prompts.block_tokens is not None
    known: set[int] = set()
    found = []
    for blocks, tokens in zip(prompts.blocks, prompts.input_tokens.tolist(), strict=True):
        again = next((place for place, block in enumerate(blocks) if block not in known), len(blocks))
        found.append(min(again * prompts.block_tokens, tokens))
        known.update(blocks)
    return np.array(found, dtype=np.int64)
