"""Many decode steps at once against the same steps one by one, while sequences come, go, and pass knots."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from steady_ranks import Steady, lines_of
from test_step_cost import COST, OPERATIONS, STEP

from sim.step.build import build_step_cost
from sim.step.decode_lines import DecodeRun
from sim.step.overlap import Line

models = st.sampled_from(list(STEP))
RANKS = st.tuples(st.integers(0, 200), st.floats(1, 9000), st.floats(0.5, 3))


def one_by_one_s(table, ranks, steps):
    """Seconds of each step, looked up for all ranks."""
    n, context, growth = (np.array(column, dtype=float) for column in zip(*ranks, strict=True))
    core = [
        [
            table.attention(int(x), c + g * i)[0] if x else 0.0
            for x, c, g in zip(n, context, growth, strict=True)
        ]
        for i in range(steps)
    ]
    line = table.line_at(int(n.max()), n.sum() / len(n))
    return np.array([line.seconds(max(of_ranks)) for of_ranks in core])


def started(cost, ranks):
    """Lines of ranks as (sequences, context, growth), at step 0."""
    return lines_of(cost, [Steady(*of_rank) for of_rank in ranks])


def until(lines, step, steps, ranks):
    """A run of so many steps, in as many runs as it takes."""
    total = sum(n for n, _, _ in ranks)
    seconds, end = 0.0, step + steps
    while step < end:
        run = lines.run(step, end - step, total)
        seconds, step = seconds + run.seconds, step + run.steps
    return seconds


@given(name=models, ranks=st.lists(RANKS, min_size=1, max_size=5), steps=st.integers(1, 3000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_many_steps_at_once_equal_steps_one_by_one(name, ranks, steps):
    lines = started(STEP[name], ranks)
    expected = one_by_one_s(STEP[name].decode_table(1), ranks, steps)
    assert until(lines, 0, steps, ranks) == pytest.approx(expected.sum(), rel=1e-4)


@given(
    models, st.lists(RANKS, min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), RANKS, st.integers(1, 900), st.integers(1, 400)), min_size=1, max_size=12),
)  # fmt: skip
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ranks_that_change_and_runs_that_are_cut(name, ranks, changes):
    """Each change comes `cut` steps into a run that looked further ahead."""
    loads, step, table = [Steady(*of_rank) for of_rank in ranks], 0, STEP[name].decode_table(1)
    lines = lines_of(STEP[name], loads)
    for rank, of_rank, ahead, cut in changes:
        lines.run(step, ahead, sum(n for n, _, _ in ranks))
        expected = one_by_one_s(table, ranks, cut)
        assert until(lines, step, cut, ranks) == pytest.approx(expected.sum(), rel=1e-4)
        lines.run(step + cut // 2, ahead, sum(n for n, _, _ in ranks))
        step += cut
        ranks = [(n, context + growth * cut, growth) for n, context, growth in ranks]
        ranks[rank % len(ranks)] = of_rank
        lines.hold(max(n for n, _, _ in ranks))
        loads[rank % len(ranks)] = Steady(*of_rank, step)
        lines.renew([rank % len(ranks)], step)


@dataclass
class Kinked:
    """Attention with a bend at 100 tokens, in a step that bends too."""

    def decode_table(self, fullest):
        return self

    def attention(self, x, context):
        slope = 1.0 if context < 100 else 3.0
        return (
            x * (context + 2 * max(context - 100, 0.0)),
            x * slope,
            100.0 if context < 100 else np.inf,
            3.0 * x,
        )

    def line(self, fullest, mean):
        return Line(5.0, 0.5, 0.25, 10.0, 60.0, 0.0, 80.0, 90.0)


class Alone(Kinked):
    """The same attention, and nothing beside it."""

    def line(self, fullest, mean):
        return Line(0.0, 1.0, *[0.0] * 6)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(1, 150), st.floats(0.5, 3)), min_size=2, max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from(("ahead", "ask", "sit", "skip", "go")), st.integers(0, 3), st.integers(1, 90)
        ),
        max_size=40,
    ),
)
@example([(1, 96.0, 1.0), (1, 1.0, 0.5)], [("ahead", 0, 50), ("ask", 0, 1), ("skip", 0, 20), ("go", 0, 1)])
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked_in_between_the_slowest_rank_is_known(ranks, actions):
    """Looks ahead that come to nothing, single ranks, steps that a rank sits out: against looking every step up."""
    table, loads, step = Alone(), [Steady(*of_rank) for of_rank in ranks], 0
    lines = lines_of(table, loads)

    def each_s(step):
        return [table.attention(*load.load(step)[:2])[0] for load in loads]

    for action, number, steps in actions:
        rank = number % len(loads)
        if action == "ahead":
            lines.run(step, steps, 1)
        elif action == "ask":
            assert lines.attention_s(rank, step) == pytest.approx(each_s(step)[rank])
        elif action == "sit":
            others_s = [s for other, s in enumerate(each_s(step)) if other != rank]
            assert lines.without(step, [rank]) == pytest.approx(max(others_s))
            lines.sit_out(rank)
            loads[rank].since += 1
            step += 1
        elif action == "skip":
            step += steps
        else:
            expected_s = sum(max(each_s(s)) for s in range(step, step + steps))
            assert until(lines, step, steps, ranks) == pytest.approx(expected_s)
            step += steps


def test_a_step_that_bends_is_taken_apart():
    """max(90, 5 + A / 2 + max(A / 4 + 10, 60) + max(A / 4, 80)) with A = 40, 41, ...: straight but for four bends."""
    lines = started(Kinked(), [(1, 40.0, 1.0)])
    line = Kinked().line(1, 1.0)
    attention = [Kinked().attention(1, 40.0 + i)[0] for i in range(500)]
    expected = np.cumsum([line.seconds(a) for a in attention])
    run = lines.run(0, 500, 1)
    for steps in (1, 60, 61, run.steps):
        assert run.total_s(steps) == pytest.approx(expected[steps - 1], rel=1e-5)


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.floats(1e-3, 1e-1), st.floats(-2e-6, 1e-4)), min_size=1, max_size=4
    ),
    st.floats(0, 1.1),
)
def test_the_running_step_is_finished_and_no_other_begun(pieces, share):
    straight = [(n, first, step if first + step * n > 0 else 0.0) for n, first, step in pieces]
    run = DecodeRun(straight[0], straight[1:])
    elapsed_s = share * run.seconds
    done, seconds = run.within(elapsed_s)
    assert 1 <= done <= run.steps
    assert seconds == pytest.approx(run.total_s(done))
    assert seconds >= elapsed_s * (1 - 1e-9) or done == run.steps
    if done > 1:
        assert run.total_s(done - 1) < elapsed_s * (1 + 1e-9)


def test_only_what_ran_is_booked():
    cost = build_step_cost({"decode": OPERATIONS["deepseek-v3"]}, COST, 64, 1024)
    lines = started(cost, [(10, 500.0, 1.0)])
    run = lines.run(0, 100, 10)
    _, seconds = run.within(run.seconds / 3)
    assert sum(cost.provenance_s().values()) == 0
    lines.book(seconds)
    assert cost.provenance_s()["analytic"] == pytest.approx(seconds)
