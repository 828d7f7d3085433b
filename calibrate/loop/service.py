"""The real side: the small engine on this device, serving requests and telling what each of its steps took."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from calibrate.engine.forward import Run, Runner
from calibrate.engine.serving import Answer, Engine, Limits, Request
from calibrate.engine.weights import random_weights, reduced
from calibrate.loop.clock import Clock
from calibrate.loop.served import Served
from calibrate.loop.settings import Settings
from calibrate.loop.steps import FittedStepCost, Step
from sim.catalog import model
from sim.workload.stream import RequestStream


@dataclass(frozen=True)
class Variant:
    """A way in which the engine runs the model."""

    name: str
    sparse: bool = True
    """DSA; otherwise every query attends to all keys."""
    drafts: int = 0
    """Of the MTP module."""


BASE = Variant("base")
DENSE = Variant("dense attention", sparse=False)
DRAFTING = Variant("MTP", drafts=1)


Calibrated = tuple[FittedStepCost, list[float]]
"""What a step costs, and the chance of each draft to be right."""


class Agreeing(Runner):
    """Agrees with every draft where it is told to, whatever it would have said itself.

    Random weights draft nothing right. So drafts cost what they cost, and are worth what those of a perfect module are.
    """

    agrees = False

    def step(self, runs: Sequence[Run]) -> tuple[list[list[int]], Tensor]:
        """See `Runner.step`. What it says within a prompt, nobody asks for."""
        found, hidden = super().step(runs)
        if self.agrees:
            found = [[*run.tokens[1:], after[-1]] for run, after in zip(runs, found, strict=True)]
        return found, hidden


class Service:
    """The engine in one variant."""

    def __init__(self, variant: Variant, told: Settings, device: torch.device, clock: Clock) -> None:
        self._clock, self._calibration, self.drafts = clock, told.calibration, variant.drafts
        self._steps: deque[list[Step]] = deque(maxlen=told.pooled)
        size = {key: value for key, value in told.model.items() if key not in ("name", "index_topk")}
        small = reduced(model(told.model["name"]), **size)
        self.model = replace(small, index_topk=told.model["index_topk"] if variant.sparse else 0)
        weights = random_weights(self.model, seed=1, device=device)
        room = told.engine["blocks"], told.engine["block_tokens"]
        self.runner = Agreeing(weights, *room)
        tokens = told.engine["tokens"]
        self.limits = Limits(told.engine["sequences"], tokens, tokens, variant.drafts)

    def warm_up(self) -> None:
        """The first calls of anything are slow: they count in no calibration."""
        self.calibrate()
        self._steps.clear()

    def calibrate(self) -> Calibrated:
        """Measured with the batches of the calibration, one by one: prompts, answers, a prompt beside answers.

        The steps of the last few times count too.
        """
        shapes, generator = self._calibration, torch.Generator().manual_seed(7)
        self.runner.agrees = False

        def asked(tokens: int, answer: int) -> Request:
            return Request(0.0, _tokens(tokens, self.model.vocab, generator), answer)

        steps: list[Step] = []
        verified = accepted = 0
        for prompt, late in zip(shapes.prompts, shapes.late, strict=True):
            for count in shapes.sequences:
                engine = self._engine()
                lengths = np.linspace(0.5, 1.5, count + 2)[1:-1] * prompt
                answers = [engine.submit(asked(int(length), shapes.answer)) for length in lengths]
                while engine.waiting or engine.running:
                    steps.append(timed_step(engine, answers))
                    if len(answers) == count and all(2 * len(a.tokens) >= shapes.answer for a in answers):
                        answers.append(engine.submit(asked(late, 2)))
                verified += sum(answer.verified for answer in answers)
                accepted += sum(answer.accepted for answer in answers)
        self._steps.append(steps)
        cost = FittedStepCost([*chain(*self._steps)], self.model, 1 + self.drafts)
        return cost, [accepted / verified / self.drafts] * self.drafts if self.drafts else []

    def serve(self, stream: RequestStream, agrees: bool = False) -> Served:
        """Serve a stream at its arrival times. `agrees`: whether every draft is right."""
        generator, self.runner.agrees = torch.Generator().manual_seed(11), agrees
        requests = [
            Request(r.arrival_s, _tokens(r.input_tokens, self.model.vocab, generator), r.output_tokens)
            for r in stream
        ]
        answers = self._engine().serve(requests)
        return Served(
            np.array([answer.request.arrival_s for answer in answers]),
            np.array([answer.times_s[0] for answer in answers]),
            np.array([answer.times_s[-1] for answer in answers]),
            np.array([answer.request.answer for answer in answers]),
        )

    def _engine(self) -> Engine:
        return Engine(self.runner, self.limits, self._clock, self._clock.sleep)


def timed_step(engine: Engine, answers: Iterable[Answer]) -> Step:
    """Let an engine make a step, and tell what was in it. `answers`: all that it may work on."""
    under_way = [answer for answer in answers if not answer.done]
    before = [answer.context.cached for answer in under_way]
    decoding = [answer.prompted for answer in under_way]
    begin_s = engine.clock()
    engine.step()
    seconds = engine.clock() - begin_s
    contexts = [first + 1 for first, decodes in zip(before, decoding, strict=True) if decodes]
    chunks = [
        (first, answer.context.cached - first)
        for answer, first, decodes in zip(under_way, before, decoding, strict=True)
        if not decodes and answer.context.cached > first
    ]
    return Step(len(contexts), float(np.mean(contexts)) if contexts else 0.0, *_sums(chunks), seconds)


def _sums(chunks: Sequence[tuple[int, int]]) -> tuple[int, int, float, int]:
    """(KV tokens before, new tokens) of each prompt -> prompts, tokens, pairs of new token and key, KV tokens held."""
    pairs = sum(new * before + new * (new + 1) / 2 for before, new in chunks)
    return len(chunks), sum(new for _, new in chunks), pairs, sum(before + new for before, new in chunks)


def _tokens(count: int, vocab: int, generator: torch.Generator) -> list[int]:
    found: list[int] = torch.randint(vocab, (count,), generator=generator).tolist()
    return found
