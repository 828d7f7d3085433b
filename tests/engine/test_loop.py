"""The loop: errors are judged against bounds and spreads, fitted steps price what they were made from, the simulator's
scheduling of them is the engine's, and the command runs and prints all figures."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cli import app
from calibrate.engine.serving import Engine, Request
from calibrate.engine.weights import random_weights
from calibrate.loop import closing, prediction
from calibrate.loop.clock import Clock
from calibrate.loop.judgement import case, effect, spread
from calibrate.loop.served import Served
from calibrate.loop.service import BASE, DRAFTING, Agreeing, Service
from calibrate.loop.settings import Calibration, settings
from calibrate.loop.steps import PARTS, FittedStepCost, Step

TOLD = settings()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_an_error_may_be_the_bound_or_twice_the_spread():
    """Repeats of 90 to 110 around 100: half of the range is 10%, and twice that more than 15%."""
    assert spread([100, 90, 110]) == pytest.approx(0.1)
    wide = case("busy", "tpot", [100, 90, 110], [119, 119, 119], 0.15)
    assert (wide.band, wide.error, wide.ok) == (pytest.approx(0.2), pytest.approx(0.19), True)
    narrow = case("busy", "tpot", [100, 99, 101], [119, 119, 119], 0.15)
    assert (narrow.band, narrow.ok) == (0.15, False)
    assert case("busy", "tpot", [100, 99, 101], [84.9], 0.15).ok is False
    assert case("busy", "tpot", [100, 99, 101], [85.1], 0.15).ok is True
    assert set(wide.json()) >= {"load", "metric", "measured", "spread", "predicted", "error", "band", "ok"}


def test_an_effect_has_a_direction_unless_it_is_smaller_than_the_spread():
    assert effect("DSA", "busy", "tpot", [1.3, 1.2, 1.4], [1.1, 1.1, 1.1]).ok is True
    assert effect("DSA", "busy", "tpot", [1.3, 1.2, 1.4], [0.9, 0.9, 1.1]).ok is False
    assert effect("DSA", "busy", "tpot", [1.05, 0.9, 1.1], [0.9, 0.9, 0.9]).ok is None
    # Told once: what the figure itself spreads by
    assert effect("DSA", "busy", "tpot", [1.05], [0.9], apart=0.08).ok is None
    assert effect("DSA", "busy", "tpot", [1.05], [0.9], apart=0.02).ok is False


def test_figures_of_a_service():
    """Two answers of 3 and 5 tokens, arrived at 0 and 1, first tokens at 1 and 3, last at 3 and 4."""
    served = Served(np.array([0.0, 1.0]), np.array([1.0, 3.0]), np.array([3.0, 4.0]), np.array([3, 5]))
    figures = served.figures()
    assert figures["throughput"] == 8 / 4
    assert figures["ttft"] == (1 + 2) / 2
    assert figures["tpot"] == pytest.approx((2 / 2 + 1 / 4) / 2)


def steps(model, seconds):
    """Of all kinds, each taking what `seconds` says of it."""
    kinds = [Step(n, c, 0, 0, 0.0, 0.0) for n in (1, 2, 5, 8) for c in (50.0, 200.0)]
    kinds += [
        Step(n, 90.0 * (n > 0), p, p * new, p * (new * before + new * (new + 1) / 2), p * (before + new))
        for n in (0, 1, 6)
        for p, new, before in ((1, 30, 0), (1, 120, 0), (2, 60, 0), (1, 100, 128), (3, 40, 100))
    ]
    return [Step(**{**vars(kind), "seconds": seconds(kind)}) for kind in kinds]


def test_steps_that_are_a_sum_of_their_parts_are_priced_exactly_wherever_they_are_asked_for():
    """Written out by hand: 1 ms a step, 10 us a token, 100 us a decoding sequence and 1 us for each of its keys."""
    model = Service(BASE, TOLD, torch.device("cpu"), Clock(wall=True)).model

    def seconds(step):
        tokens = step.tokens + step.sequences
        return 1e-3 + 1e-5 * tokens + 1e-4 * step.sequences + 1e-6 * step.sequences * step.context

    cost = FittedStepCost(steps(model, seconds), model, 1)
    assert len(PARTS) == len(steps(model, seconds)[0].parts(model, 1))
    assert cost.interruptions == pytest.approx(1.0)
    attention_s, per_token_s, _, _ = cost.attention(4, 120.0)
    assert cost.line(4, 4.0).seconds(attention_s) == pytest.approx(1e-3 + 4e-5 + 4e-4 + 480e-6, rel=1e-4)
    assert per_token_s == pytest.approx(4e-6, rel=1e-3)
    slow = [Step(**{**vars(s), "seconds": 1.1 * s.seconds}) for s in steps(model, seconds)]
    slow[3] = Step(**{**vars(slow[3]), "seconds": 100 * slow[3].seconds})
    interrupted = FittedStepCost(slow, model, 1)
    assert (
        interrupted.interruptions > 1.5
    )  # all of the time is accounted for, and not by that step's parts alone
    total = sum(interrupted.seconds(step) for step in slow)
    assert total == pytest.approx(sum(step.seconds for step in slow))


def test_the_simulator_schedules_as_the_engine_does():
    """On a clock that each step moves by what it is fitted to take, every token comes when it is predicted."""
    service = Service(BASE, TOLD, torch.device("cpu"), Clock(wall=True))
    model = service.model

    def seconds(step):
        return 2e-3 + 5e-5 * (step.tokens + step.sequences)

    cost = FittedStepCost(steps(model, seconds), model, 1)
    asked = prediction.scenario(TOLD, 30, {"poisson": {"rate_per_s": 40.0}})
    predicted = prediction.predict(TOLD, asked, cost, ())
    now = [0.0]

    class Timed(Agreeing):
        def step(self, runs):
            now[0] += 2e-3 + 5e-5 * sum(len(run.tokens) for run in runs)
            return [[1] * len(run.tokens) for run in runs], torch.zeros(1)

    def sleep(seconds):
        now[0] += seconds

    runner = Timed(random_weights(model), TOLD.engine["blocks"], TOLD.engine["block_tokens"])

    engine = Engine(runner, service.limits, lambda: now[0], sleep)
    requests = [
        Request(r.arrival_s, [1] * r.input_tokens, r.output_tokens) for r in prediction.stream_of(asked)
    ]
    answers = engine.serve(requests)
    assert np.allclose([a.times_s[0] for a in answers], predicted.first_s, rtol=1e-3)
    assert np.allclose([a.times_s[-1] for a in answers], predicted.finish_s, rtol=1e-3)


def test_drafts_are_right_where_they_are_told_to_be():
    """60 tokens: one with the prompt, then two a step."""
    service = Service(DRAFTING, TOLD, torch.device("cpu"), Clock(wall=True))
    service.runner.agrees = True
    engine = Engine(service.runner, service.limits)
    answers = [engine.submit(Request(0.0, [3 * i + j for j in range(20)], 60)) for i in range(6)]
    while engine.waiting or engine.running:
        engine.step()
    assert all(answer.accepted == answer.verified == 29 for answer in answers)
    assert sum(step.decoding > 0 for step in engine.steps) == 30


def test_late_effects_are_not_told_again_and_every_load_is_repeated(monkeypatch):
    """Five repeats of three loads; effects in the first three, and only once where the minutes are over by then."""
    served = Served(np.array([0.0, 1.0]), np.array([1.0, 3.0]), np.array([3.0, 4.0]), np.array([3, 5]))

    class Stub:
        def __init__(self, variant, *_):
            self.drafts = variant.drafts

        def warm_up(self):
            pass

        def calibrate(self):
            return None, [0.5] * self.drafts

        def serve(self, stream, agrees=False):
            return served

    monkeypatch.setattr(closing, "Service", Stub)
    monkeypatch.setattr(prediction, "predict", lambda *_: served)
    for minutes, told in ((10.0, 3), (1e-9, 1)):
        settled = replace(TOLD, minutes=minutes)
        closed = closing.close(settled, torch.device("cpu"), Clock(wall=True), lambda _: None)
        times = {name: len(repeats) for name, repeats in closed.repeats.items()}
        assert {times[closing.AS_IS, load] for load in TOLD.loads} == {5}
        assert {count for (name, _), count in times.items() if name != closing.AS_IS} == {told}
        assert len(closed.effects) == 9 and all(one.measured == 1.0 for one in closed.effects)


def test_the_command_prints_every_figure(tmp_path, monkeypatch):
    """A loop too short to be judged: it runs, whichever way it ends."""
    few = Calibration(sequences=(1, 3), prompts=(90,), late=(50,), answer=6)
    monkeypatch.setattr("calibrate.loop.settings.settings", lambda: replace(TOLD, calibration=few))
    asked = ["loop", "--json", "--requests", "4", "--repeats", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, asked)
    told = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == (0 if told["ok"] else 1), result.output
    assert [(one["load"], one["metric"]) for one in told["cases"]] == [
        (load, metric) for load in ("light", "busy", "overload") for metric in ("throughput", "ttft", "tpot")
    ]
    for one in told["cases"]:
        assert one["measured"] > 0 and one["predicted"] > 0 and one["spread"] == 0
        assert one["error"] == pytest.approx(one["predicted"] / one["measured"] - 1)
        assert one["ok"] == (abs(one["error"]) <= one["band"])
    assert len(told["effects"]) == 9
    assert json.loads((tmp_path / "loop.json").read_text())["ok"] == told["ok"]
    assert (tmp_path / "loop.html").read_text().count("Timelines: ") >= 3


def test_an_unknown_device_is_refused():
    assert CliRunner().invoke(app, ["loop", "--device", "tpu"]).exit_code == 2
