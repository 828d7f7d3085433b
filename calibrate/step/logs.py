"""Step logs of SGLang and vLLM -> timed steps.

SGLang tells rates, so a step's time is known only where nothing else ran between two lines: decode lines behind a
decode line of as many sequences; prefill lines behind a prefill line of as many tokens, while requests were waiting.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from calibrate.step.formats import formats, patterns
from calibrate.step.timed import Beside, NoSteps, TimedStep
from sim.files import read_text

MOST_BYTES: Final = 2**30
"""Of a log."""
RANK: Final = re.compile(r"\bDP\d+|_DP\d+|Engine \d+")
"""Which attention-DP rank wrote a line."""


def read_log(path: Path, beside: Beside) -> list[TimedStep]:
    """The timed steps of a log. Raises OSError, and NoSteps where there are none or a context is not told."""
    lines = read_text(path, MOST_BYTES).splitlines()
    steps = [*_sglang(path, lines, beside), *_vllm(path, lines, beside)]
    if not steps:
        raise NoSteps(
            f"{path}: expected `Decode batch` and `Prefill batch` lines of SGLang, or `Iteration(` lines of vLLM "
            "(--enable-logging-iteration-details), each kind at least twice in a row with the same batch"
        )
    return steps


def _sglang(path: Path, lines: list[str], beside: Beside) -> Iterator[TimedStep]:
    before: dict[str, dict[str, str]] = {}
    decode, prefill = patterns("lines")["sglang_decode"], patterns("lines")["sglang_prefill"]
    for line in lines:
        found = decode.search(line) or prefill.search(line)
        if found is None:
            continue
        rank = RANK.search(line[: found.start()])
        key = rank.group() if rank else ""
        told, last = found.groupdict(), before.get(key, {})
        before[key] = told
        rate = float(told["rate"])
        if not rate:
            continue
        if "sequences" in told:
            sequences = int(told["sequences"])
            if sequences and last.get("sequences") == told["sequences"]:
                seconds = sequences * float(told["accepted"] or 1) / rate
                context = beside.context_in(path, int(told["held"]) / sequences)
                yield TimedStep(seconds, sequences, context)
        elif last.get("tokens") == told["tokens"] and int(last["queue"]):
            tokens, count = int(told["tokens"]), int(told["prompts"])
            cached = int(told["cached"]) / max(count, 1) or None
            pairs, held = beside.prompts(count, tokens, cached)
            yield TimedStep(tokens / rate, 0, 0.0, tokens, pairs, held)


def _vllm(path: Path, lines: list[str], beside: Beside) -> Iterator[TimedStep]:
    of_step, of_cache = patterns("lines")["vllm_iteration"], patterns("lines")["vllm_cache"]
    sizes = [int(found["size"].replace(",", "")) for line in lines if (found := of_cache.search(line))]
    # A line without tokens is of a rank that waits for the others.
    told = [
        found
        for line in lines
        if (found := of_step.search(line)) and found["queries"] + found["tokens"] != "00"
    ]
    least_s = float(formats()["waited_for_nothing_s"]["value"])
    timed = [found for found in told if float(found["ms"]) * 1e-3 >= least_s]
    if len(told) - len(timed) > float(formats()["waited_for_nothing_share"]["value"]) * len(told):
        raise NoSteps(
            f"{path}: {len(told) - len(timed):,} of {len(told):,} iterations took less than {least_s * 1e3:g} ms: with "
            "asynchronous scheduling vLLM tells how long it waited; run it with --no-async-scheduling"
        )
    for found in timed:
        sequences, tokens, usage = int(found["sequences"]), int(found["tokens"]), found["usage"]
        full = float(usage) / 100 * sizes[0] if usage and sizes and not tokens else None
        context = beside.context  # said beside, as the cache may hold more than these sequences
        if context is None:
            context = beside.context_in(path, full and full / sequences) if sequences else 0.0
        pairs, held = beside.prompts(int(found["prompts"]), tokens)
        seconds = float(found["ms"]) * 1e-3
        yield TimedStep(seconds, sequences, context if sequences else 0.0, tokens, pairs, held)
