"""Requests on a clock: arrivals are waited for, limits are kept, blocks are reserved, and every token has its time."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import time

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.engine.forward import Runner
from calibrate.engine.serving import Engine, Limits, Request
from calibrate.engine.weights import random_weights, reduced
from sim.catalog import model

torch.set_num_threads(1)
WEIGHTS = random_weights(reduced(model("deepseek-v3.2"), 2, 64, 4, 8, 50))


def request(arrival_s, prompt=20, answer=5):
    return Request(arrival_s, list(range(prompt)), answer)


def test_a_request_waits_for_its_arrival_and_its_tokens_come_one_after_the_other():
    engine = Engine(Runner(WEIGHTS, 64, 4), Limits())
    begin = time.perf_counter()
    answers = engine.serve([request(1.0), request(0.0), request(1.01)])
    took_s = time.perf_counter() - begin
    assert [a.request.arrival_s for a in answers] == [0.0, 1.0, 1.01]
    for answer in answers:
        assert len(answer.times_s) == len(answer.tokens) == 5
        assert answer.times_s == sorted(answer.times_s)
        assert 0 < answer.ttft_s < took_s and 0 < answer.tpot_s < took_s
    assert answers[1].times_s[0] > 1.0
    ends = [step.end_s for step in engine.steps]
    assert all(step.begin_s >= end for step, end in zip(engine.steps[1:], ends, strict=False))
    idle = max(
        after.begin_s - before.end_s for before, after in zip(engine.steps, engine.steps[1:], strict=False)
    )
    assert idle > 0.05  # between the first answer and the second arrival nothing runs


def test_a_step_keeps_its_limits_and_answers_go_before_prompts():
    engine = Engine(Runner(WEIGHTS, 200, 4), Limits(sequences=3, tokens=16, chunk=8))
    engine.serve([request(0.0, prompt) for prompt in (30, 9, 20, 25, 2)])
    assert max(step.verified + step.prompt_tokens for step in engine.steps) <= 16
    assert max(step.decoding for step in engine.steps) <= 3
    mixed = [step for step in engine.steps if step.decoding and step.prompt_tokens]
    assert mixed  # prompts go on beside answers
    # The first step by hand: 8 of the 30, 8 of the 9; the third prompt waits for the next one.
    assert engine.steps[0].prompt_tokens == 16
    assert engine.steps[1].prompt_tokens == 8 + 1 + 7


def test_a_request_is_admitted_once_its_longest_answer_has_room():
    runner = Runner(WEIGHTS, 12, 4)  # 48 tokens: one of 20 + 5 takes 7 blocks
    engine = Engine(runner, Limits())
    answers = engine.serve([request(0.0), request(0.0)])
    assert all(step.decoding <= 1 for step in engine.steps)
    assert answers[1].times_s[0] > answers[0].times_s[-1]
    assert len(runner.cache.free) == 12


def test_what_could_never_be_held_is_refused():
    engine = Engine(Runner(WEIGHTS, 12, 4), Limits())
    with pytest.raises(ValueError, match="a prompt of 60 with an answer of 5 does not fit"):
        engine.submit(request(0.0, 60))
    with pytest.raises(ValueError, match="does not fit"):
        engine.submit(request(0.0, 0))


def test_time_is_the_clocks():
    """A clock that ticks once a look: what a step took is told by it and by nothing else."""
    ticks = iter(range(10_000))
    engine = Engine(Runner(WEIGHTS, 64, 4), Limits(), clock=lambda: float(next(ticks)))
    (answer,) = engine.serve([request(0.0)])
    assert all(step.end_s - step.begin_s == 1.0 for step in engine.steps)
    assert answer.times_s == [step.end_s for step in engine.steps]
