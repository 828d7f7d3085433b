"""The results of `vllm bench serve` and of SGLang's `bench_serving`: flat objects that share most of their keys."""

import re
from collections.abc import Iterator
from math import inf, sqrt
from typing import Final

from sim.validation.bench.numbers import Values
from sim.validation.bench.run import BenchError, BenchLengths, BenchRun, Figures, Load, formats, little

KEY: Final = re.compile(r"(mean|median|p\d+)_(\w+?)_ms")
NAMES: Final = {"mean": "mean", "median": "p50"}
AGREE: Final = 0.02
"""How far the lengths of single requests, or a range, may be from the file's own totals."""
AT_ONCE: Final = 0.05
"""Share of a run by which all requests were sent, if they were sent at once."""
EVEN_CV: Final = 1e-3
"""Of gaps that are all alike: the least that a scenario takes."""


def tool_of(values: Values) -> str | None:
    """`vllm` or `sglang`; None for another file."""
    if not {"completed", "duration"} <= values.data.keys():
        return None
    if {"model_id", "num_prompts"} & values.data.keys():
        return "vllm"
    return "sglang" if {"dataset_name", "backend"} & values.data.keys() else None


def read_client(id: str, tool: str, values: Values) -> BenchRun:
    """The run that an object holds."""
    notes: list[str] = []
    if values.data["completed"] == 0:
        failed = values.data.get("failed")
        beside = f", {failed} failed" if failed else ""
        raise BenchError(f"{values.wrong('completed', 'a number above 0')}: no request was answered{beside}")
    requests = values.count("completed")
    if failed := values.data.get("failed"):
        notes.append(f"{failed} requests failed; they are left out")
    notes += _beside(values)
    lengths = _lengths(values, requests, notes)
    measured = _figures(values, notes)
    return BenchRun(
        id=id,
        tool=tool,
        load=_load(values, requests, lengths, measured, notes),
        lengths=lengths,
        requests=requests,
        measured=measured,
        model=str(values.data.get("model_id") or ""),
        notes=tuple(notes),
    )


def _beside(values: Values) -> Iterator[str]:
    """What it says of caches and drafts, which is the scenario's to say here."""
    hits = values.at("cache_report.cache_hit_rate_pct")
    if isinstance(hits, int | float) and hits >= 1:
        yield f"{hits:g}% of its prompt tokens were cached: workload.cached_fraction of the scenario says so here"
    for key in ("spec_decode_acceptance_length", "accept_length"):
        told = values.data.get(key)
        if isinstance(told, int | float) and told > 1:
            yield f"its accept length was {told:.3g}: speculation.acceptance of the scenario says so here"


def _figures(values: Values, notes: list[str]) -> Figures:
    """What it measured. Zeros are what clients write where there is nothing."""
    found: dict[str, dict[str, float]] = {}
    known = formats()
    for key in values.data:
        named = KEY.fullmatch(key)
        metric = known["metrics"].get(named[2]) if named else None
        if named and metric and values.data[key]:
            found.setdefault(metric, {})[NAMES.get(named[1], named[1])] = values.positive(key) * 1e-3
        elif key in known["rates"] and values.data[key]:
            found[known["rates"][key]] = {"rate": values.positive(key)}
    if (
        "total_tokens_per_s" not in found
        and {"total_input_tokens", "total_output_tokens"} <= values.data.keys()
    ):
        total = values.positive("total_input_tokens") + values.positive("total_output_tokens")
        found["total_tokens_per_s"] = {"rate": total / values.positive("duration")}
    if "output_tokens_per_s" not in found and "total_output_tokens" in values:
        rate = values.positive("total_output_tokens") / values.positive("duration")
        found["output_tokens_per_s"] = {"rate": rate}
    found.setdefault("requests_per_s", {"rate": values.count("completed") / values.positive("duration")})
    ttft, e2e = (found.get(name, {}).get("mean") for name in ("ttft", "e2e"))
    if ttft and e2e and ttft > 0.999 * e2e and "tpot" not in found:
        notes.append(formats()["why"]["whole"])
        del found["ttft"]
    return found


def _lengths(values: Values, requests: int, notes: list[str]) -> BenchLengths:
    """Of each request where they stand there and agree with the totals; else a range that does; else the means."""
    means = {
        side: values.positive(f"total_{side}_tokens") / requests
        for side in ("input", "output")
        if f"total_{side}_tokens" in values
    }
    each = [pair for pair in _pairs(values) if min(pair) > 0]
    if each:
        sums = dict(
            zip(("input", "output"), (sum(side) / len(each) for side in zip(*each, strict=True)), strict=True)
        )
        if len(each) == requests and all(abs(sums[s] / mean - 1) <= AGREE for s, mean in means.items()):
            return BenchLengths(each=each)
        notes.append(
            f"input_lens and output_lens hold {len(each)} of {requests} answered requests, or contradict the totals; "
            "not used"
        )
    if len(means) < 2:
        raise BenchError(
            f"{values.place}: expected the lengths of requests: total_input_tokens and total_output_tokens, or "
            "input_lens and output_lens"
        )
    found = {side: _range(values, side, mean) for side, mean in means.items()}
    if not all(found.values()):
        notes.append(
            "the file has the mean lengths only, so all requests are alike here; with --save-detailed (vLLM) or "
            "--output-details (SGLang) it has every length"
        )
    alike = {side: {"constant": max(1, round(mean))} for side, mean in means.items()}
    return BenchLengths(input=found["input"] or alike["input"], output=found["output"] or alike["output"])


def _pairs(values: Values) -> list[tuple[int, int]]:
    """Tokens in and out of every request, those that failed among them: they have none."""
    return list(zip(values.tokens("input_lens"), values.tokens("output_lens"), strict=False))


def _range(values: Values, side: str, mean: float) -> dict[str, list[int]]:
    """SGLang's random lengths: uniform from a share of the longest; empty where the file does not say so."""
    longest, share = values.data.get(f"random_{side}_len"), values.data.get("random_range_ratio")
    named = str(values.data.get("dataset_name", "")).startswith("random")
    if not named or type(longest) is not int or not isinstance(share, int | float):
        return {}
    if not 0 <= share <= 1:  # NaN among them
        return {}
    bounds = [max(1, int(longest * share)), longest]
    return {"uniform": bounds} if abs(sum(bounds) / 2 / mean - 1) <= AGREE * 2.5 else {}


def _load(values: Values, requests: int, lengths: BenchLengths, measured: Figures, notes: list[str]) -> Load:
    """When it sent them. With a rate and a bound, whichever held."""
    bound = values.count("max_concurrency") if "max_concurrency" in values else None
    times = _times(values, lengths)
    if load := _unsteady(values, requests, bound, times, notes):
        return load
    rate = values.rate("request_rate")
    if rate == inf:
        return Load(bound)
    if bound is not None:
        in_flight = little(measured)
        held = in_flight is not None and in_flight > 0.9 * bound
        says = "" if in_flight is None else f", {in_flight:.1f} in flight on average"
        taken = f"{bound} in flight" if held else f"{rate:g} requests/s"
        notes.append(f"a rate of {rate:g}/s and at most {bound} in flight{says}: simulated as {taken}")
        if held:
            return Load(bound)
    if times is not None:
        return Load(rate_per_s=rate, times_s=times)
    burstiness = values.rate("burstiness") if "burstiness" in values else 1.0
    return Load(rate_per_s=rate, cv=max(EVEN_CV, min(10.0, 1 / sqrt(burstiness))))


def _unsteady(
    values: Values, requests: int, bound: int | None, times: list[float] | None, notes: list[str]
) -> Load | None:
    """The times of a trace, or of a rate that rises; a steady rate where they are not told. None for other loads."""
    rises, asked = values.data.get("ramp_up_strategy"), values.data.get("request_rate")
    if not rises and asked != "trace":  # SGLang's name for it; vLLM's --self-timed leaves the rate as it is
        late = bound is None and times is not None and max(times) > AT_ONCE * values.positive("duration")
        return Load(times_s=times) if late and values.rate("request_rate") == inf else None
    if times is not None:
        return Load(times_s=times)
    first, last = (values.data.get(f"ramp_up_{end}_rps") for end in ("start", "end"))
    told = f"the rate rises from {first} to {last}/s" if rises else "sent at the times of a trace"
    notes.append(f"{told}, and the file does not hold the times; taken as a steady rate")
    return Load(bound, requests / values.positive("duration"))


def _times(values: Values, lengths: BenchLengths) -> list[float] | None:
    """When the answered requests were sent, from the first one; None where the file does not say, or their lengths."""
    started, pairs = values.data.get("start_times"), _pairs(values)
    if not isinstance(started, list) or lengths.each is None or len(started) != len(pairs):
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in started):
        raise values.wrong("start_times", "a list of times")
    sent = [float(one) for one, pair in zip(started, pairs, strict=True) if min(pair) > 0]
    return [one - min(sent) for one in sent]
