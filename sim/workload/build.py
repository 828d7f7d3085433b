"""From the `workload` section of a scenario to its requests."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count as numbers
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import catalog
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Arrivals, Scenario
from sim.scenario.workload import PoissonArrivals, Workload
from sim.workload import trace
from sim.workload.arrivals import arrival_times, arriving, check_span, feasible
from sim.workload.drawn import Counting, DrawnStream
from sim.workload.lengths import Source, least
from sim.workload.prompts import Prompts
from sim.workload.recorded import Trace
from sim.workload.sessions import Conversation, Sessions, Turn, Underway
from sim.workload.shares import check_shares, dealt, part
from sim.workload.stream import AllTurns, RequestStream, closed_loop

Draw = Callable[[int], Prompts]
Floats = NDArray[np.float64]

SEVERAL, AT_ONCE_S = 10, 0.1
"""Requests that come within a tenth of a second come at once, for a service whose answers take seconds."""


def requests(scenario: Scenario, seed: int, base_folder: Path | None = None) -> RequestStream:
    """The requests of a scenario's workload; the same for the same seed, on every machine and in every process.

    `workload.requests` and `duration_s` bound them, whichever comes first. A trace is used once, from its start:
    at its own times or, where `arrivals` are given, its requests (or sessions) in order at those times.
    `cached_fraction` takes the place of a trace's block hashes.

    Args:
        seed: of the run. Arrivals, input lengths, output lengths, the jitter of stamps and each client of a trace have
            random streams of their own, so that changing one leaves the others as they were.
        base_folder: what relative file names start from (the scenario's folder); default the working directory.

    Raises:
        DeploymentError: if a file or trace does not exist, or arrivals and bounds do not fit together.
        ScenarioError: if a file's content is broken, with file, line and column.
    """
    stream = _built(scenario, seed, base_folder)
    check_span(stream.known_until_s)
    return replace(stream, notes=(*stream.notes, *_hardly_a_load(scenario, stream)))


def incoming(
    scenario: Scenario, seed: int, base_folder: Path | None = None, counting: Counting = None
) -> RequestStream | DrawnStream:
    """The same requests; for a summary drawn as they arrive, however many, where they are not those of a trace and
    nobody waits for an answer."""
    stream = _drawn(scenario, seed, base_folder, counting) if scenario.metrics == "summary" else None
    return requests(scenario, seed, base_folder) if stream is None else stream


def _drawn(scenario: Scenario, seed: int, base_folder: Path | None, counting: Counting) -> DrawnStream | None:
    workload = scenario.workload
    form, lengths = workload.arrivals, workload.lengths
    if workload.trace is not None or form is None or lengths is None or form.closed_loop is not None:
        return None

    def draw() -> Iterator[tuple[Floats, Prompts]]:
        next_prompts = _cached(scenario, Source(lengths, seed, base_folder).next)
        number = 0
        for times in arriving(form, workload.requests, scenario.duration_s, seed, base_folder):
            prompts, kept = next_prompts(len(times)), dealt(scenario, len(times), number)
            number += len(times)
            yield (times, prompts) if kept is None else (times[kept], prompts.take(kept))

    stream = DrawnStream(draw, counting)
    check_span(stream.known_until_s)
    stream.notes = (*_unhashed(scenario), *_hardly_a_load(scenario, stream))
    return stream


def _built(scenario: Scenario, seed: int, base_folder: Path | None) -> RequestStream:
    workload = scenario.workload
    if workload.trace is None:
        assert workload.lengths is not None
        source = Source(workload.lengths, seed, base_folder)
        notes = [*_unhashed(scenario), *_in_step(workload)]
        return _arriving(scenario, source.next, workload.requests, seed, base_folder, notes)
    until_s, count = _closes_s(scenario), workload.requests
    recorded = trace.load(
        workload.trace, seed, base_folder, until_s, workload.time_unit, count, workload.columns
    )
    if isinstance(recorded, Sessions):
        return _conversing(scenario, recorded, seed, base_folder)
    return _recorded(scenario, recorded, seed, base_folder)


def _hardly_a_load(scenario: Scenario, stream: RequestStream | DrawnStream) -> Iterator[str]:
    """Says so where nobody comes, or all come at once although a rate is asked for."""
    if not len(stream):
        yield "no request arrives: the rate is too low for duration_s, or the workload begins later"
    arrivals, last_s = scenario.workload.arrivals, stream.last_arrival_s
    if arrivals is None or arrivals.all_at_once is not None or last_s is None or len(stream) < SEVERAL:
        return
    if last_s < AT_ONCE_S:
        yield (
            f"all {len(stream):,} requests arrive within {last_s:.3g} s, so this is no steady load but a batch "
            "(`arrivals: {all_at_once: {}}` says the same); more requests, or a lower rate?"
        )


def _in_step(workload: Workload) -> list[str]:
    """Says so where a closed loop of equal requests never falls out of step."""
    arrivals, lengths = workload.arrivals, workload.lengths
    if not arrivals or not arrivals.closed_loop or arrivals.closed_loop.concurrency == 1 or not lengths:
        return []
    if lengths.input.constant is None or lengths.output.constant is None:
        return []
    return [
        "requests of one length in a closed loop stay in step, all prompts first and then all answers: TTFT is longer "
        "and TPOT shorter than with lengths that vary, as benchmarks have them (uniform: [low, high])"
    ]


def _recorded(scenario: Scenario, rows: Trace, seed: int, base_folder: Path | None) -> RequestStream:
    """The requests of a trace, at its own times or at those of the scenario."""
    workload, prompts = scenario.workload, rows.prompts
    own = rows.understood is not None and rows.name not in trace.shipped()
    notes = [rows.described(), *rows.notes] if own else list(rows.notes)
    if prompts.block_tokens is None:
        notes += _unhashed(scenario)
    else:
        size, says = _block_size(scenario, rows.name, prompts.block_tokens)
        notes += says
        prompts = prompts if size is None else prompts.in_blocks_of(size)
    wanted = workload.requests or 0
    if wanted > len(prompts):
        notes.append(f"{rows.name}: holds {len(prompts)} of the {wanted} requests asked for")
    count = min(len(prompts), wanted or len(prompts))
    if count < len(prompts):
        of = f"of its {len(prompts):,} requests (workload.requests)"
        if not rows.whole:
            of = f"requests (workload.requests); the file is read no further than its first {len(prompts):,}"
            if rows.arrival_s is not None:
                of += ", and times are taken to rise beyond them, in the same unit"
        notes.append(f"{rows.name}: the first {count:,} {of}")
    draw = _in_order(prompts[:count])
    if workload.arrivals is not None:
        return _arriving(scenario, draw, count, seed, base_folder, notes)
    if rows.arrival_s is None:
        raise trace.timeless(rows.name, rows.looks_like_times)
    times = rows.arrival_s[:count]
    times = times[times < _closes_s(scenario)]
    if len(times) < count:
        notes.append(
            f"{rows.name}: {len(times):,} of {count:,} requests arrive before duration_s {scenario.duration_s:g}; the "
            "others are left out"
        )
    return _open(scenario, _cached(scenario, draw), times, notes)


def _arriving(
    scenario: Scenario, draw: Draw, count: int | None, seed: int, base_folder: Path | None, notes: list[str]
) -> RequestStream:
    """Prompts, in the order in which `draw` gives them, at the times of the scenario's `arrivals`."""
    form = scenario.workload.arrivals
    assert form is not None
    draw = _cached(scenario, draw)
    if form.closed_loop is not None:
        concurrency = feasible(part(scenario, form.closed_loop.concurrency))
        bound = count and feasible(part(scenario, count))
        stream = closed_loop(draw, concurrency, bound, _closes_s(scenario), tuple(notes))
        lengths = scenario.workload.lengths
        if bound is not None or lengths is None:
            return stream
        return replace(stream, draws_at_least=least(lengths.input) + least(lengths.output))
    return _open(scenario, draw, arrival_times(form, count, scenario.duration_s, seed, base_folder), notes)


def _open(scenario: Scenario, draw: Draw, times: Floats, notes: list[str]) -> RequestStream:
    """Prompts at known times, or those of them that the simulated part of a fleet gets."""
    prompts, kept = draw(len(times)), dealt(scenario, len(times))
    check_shares(scenario, hashed=prompts.block_tokens is not None, sessions=False)
    if kept is not None:
        prompts, times = prompts.take(kept), times[kept]
    return RequestStream(prompts, times, notes=tuple(notes))


def _conversing(scenario: Scenario, recorded: Sessions, seed: int, base_folder: Path | None) -> RequestStream:
    """Sessions that start at the times of `arrivals` (`concurrency` of them at any time in a closed loop)."""
    workload, name = scenario.workload, recorded.name
    size, notes = _block_size(scenario, name, recorded.block_tokens)
    context = catalog.model(scenario.model).max_positions
    sessions = recorded.within(context)
    if left := recorded.turns - sessions.turns:
        notes.append(
            f"{name}: {left} of {recorded.turns} turns exceed {context} tokens, or follow one that does; left out"
        )
    form = workload.arrivals
    if form is None:
        if recorded.starts_per_s is None:
            raise trace.timeless(name)
        form = Arrivals(poisson=PoissonArrivals(rate_per_s=recorded.starts_per_s))
        notes.append(
            f"{name}: {recorded.starts_per_s:g} sessions start per second; `workload.arrivals` may say otherwise"
        )
    wanted = workload.requests or 0
    if wanted > sessions.turns:
        notes.append(f"{name}: holds {sessions.turns} of the {wanted} requests asked for")
    most = min(len(sessions.sessions), wanted or len(sessions.sessions))
    waiting = _begun(sessions, size)
    loop = form.closed_loop
    if loop is None:
        times = arrival_times(form, most, scenario.duration_s, seed, base_folder)
    else:
        times = np.zeros(min(feasible(part(scenario, loop.concurrency)), most))
    started = [next(waiting) for _ in times]
    check_shares(scenario, hashed=size is not None, sessions=True)
    if loop is None and (kept := dealt(scenario, len(times))) is not None:
        started, times = [started[row] for row in kept.tolist()], times[kept]
    follow = Conversation(started, waiting if loop else None, _closes_s(scenario), workload.cached_fraction)
    first = _cached(scenario, lambda _: _first_turns(started, size))(len(times))
    turns = [turn for session in sessions.sessions for turn in session]
    every = _cached(scenario, lambda _: _tokens(turns))(len(turns))
    concurrency = part(scenario, loop.concurrency) if loop else None
    all_turns = AllTurns(len(sessions.sessions), every)
    most_requests = workload.requests and part(scenario, workload.requests)
    return RequestStream(first, times, concurrency, tuple(notes), follow, all_turns, most=most_requests)


def _begun(recorded: Sessions, block_tokens: int | None) -> Iterator[Underway]:
    """The sessions in order, as they begin."""
    every = block_tokens // recorded.block_tokens if block_tokens else 0
    for number, session in zip(numbers(), recorded.sessions, strict=False):
        yield Underway(number, session, every, block_tokens or 1)


def _first_turns(sessions: list[Underway], block_tokens: int | None) -> Prompts:
    prompts = _tokens([session.turns[0] for session in sessions])
    if block_tokens is None:
        return prompts
    blocks, answers = [s.blocks(0) for s in sessions], [s.answer_blocks(0) for s in sessions]
    return replace(prompts, blocks=blocks, block_tokens=block_tokens, answer_blocks=answers)


def _tokens(turns: list[Turn]) -> Prompts:
    inputs, outputs = ([t.input_tokens for t in turns], [t.output_tokens for t in turns])
    return Prompts.of(np.array(inputs, dtype=np.int64), np.array(outputs, dtype=np.int64))


def _block_size(scenario: Scenario, name: str, recorded: int) -> tuple[int | None, list[str]]:
    """Tokens of the blocks that the prefix cache works in, and notes; None where nothing is looked up.

    A recording cannot tell prefixes apart inside its blocks: these are the smallest that work.
    """
    cache, wanted = scenario.prefix_cache, scenario.prefix_cache.block_tokens
    if scenario.workload.cached_fraction is not None:
        return None, [f"{name}: cached_fraction takes the place of the trace's block hashes"]
    if not cache.enabled:
        return None, []
    if wanted % recorded and recorded % wanted:
        says = f"{wanted} neither divides nor is a multiple of the {recorded} tokens that '{name}' hashes"
        raise DeploymentError([Problem(("prefix_cache", "block_tokens"), says)])
    if wanted < recorded:
        return recorded, [
            f"{name}: hashes blocks of {recorded} tokens, so prefixes are found in those, not in {wanted}"
        ]
    return wanted, []


def _unhashed(scenario: Scenario) -> list[str]:
    """A note where a prefix cache is asked for and the workload does not tell which prompts begin alike."""
    if scenario.prefix_cache.enabled and scenario.workload.cached_fraction is None:
        says = "this workload has no block hashes, so nothing is found; `workload.cached_fraction` may say what is"
        return [f"prefix_cache: {says}"]
    return []


def _closes_s(scenario: Scenario) -> float:
    return math.inf if scenario.duration_s is None else scenario.duration_s


def _cached(scenario: Scenario, draw: Draw) -> Draw:
    fraction = scenario.workload.cached_fraction
    return draw if fraction is None else lambda count: draw(count).with_cached(fraction)


def _in_order(prompts: Prompts) -> Draw:
    """Draws from the front of `prompts` to their end."""
    taken = 0

    def draw(count: int) -> Prompts:
        nonlocal taken
        taken += count
        return prompts[taken - count : taken]

    return draw
