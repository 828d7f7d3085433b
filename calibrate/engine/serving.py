"""Continuous batching on a real clock: requests arrive, prompts are computed in chunks beside the answers under way.

Every step first takes the next tokens of all answers under way, with their drafts, then as much of the waiting prompts
as the budget of tokens leaves, in the order of their arrival. A request is admitted once the cache has room for its
prompt and its longest answer, so that none is ever thrown out again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from calibrate.engine.forward import Context, Run, Runner


@dataclass(frozen=True)
class Limits:
    """What a step holds at most."""

    sequences: int = 32
    tokens: int = 512
    """New tokens of a step: answers with their drafts, and chunks of prompts."""
    chunk: int = 256
    """Tokens of one prompt in a step."""
    drafts: int = 0
    """Drafts of the MTP module behind each answer's token."""


@dataclass(frozen=True)
class Request:
    """A prompt, and how many tokens its answer has."""

    arrival_s: float
    prompt: Sequence[int]
    answer: int


@dataclass
class Answer:
    """A request on its way, and when its tokens came, in seconds since the beginning."""

    request: Request
    context: Context = field(default_factory=Context)
    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    verified: int = 0
    """Steps that verified drafts."""
    accepted: int = 0
    """Drafts that turned out right."""

    @property
    def prompted(self) -> bool:
        """Whether the whole prompt is in the cache."""
        return self.context.cached >= len(self.request.prompt)

    @property
    def done(self) -> bool:
        """Whether all tokens are there."""
        return len(self.tokens) >= self.request.answer

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.times_s[0] - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for answers of one token."""
        further = len(self.tokens) - 1
        return (self.times_s[-1] - self.times_s[0]) / further if further else None


@dataclass(frozen=True)
class Step:
    """What one step computed, and how long it took."""

    begin_s: float
    end_s: float
    decoding: int
    """Sequences whose answers went on."""
    verified: int
    """Their tokens, drafts included."""
    prompt_tokens: int
    context: int
    """KV tokens of all sequences in the step."""


class Engine:
    """Serves requests with one runner; `clock` gives seconds, `sleep` lets so many of them pass."""

    def __init__(
        self, runner: Runner, limits: Limits, clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        if limits.drafts and runner.weights.module is None:
            raise ValueError(f"{runner.model.name} has no MTP module to draft with")
        self.runner, self.limits, self.clock, self._sleep = runner, limits, clock, sleep
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []
        self.steps: list[Step] = []
        self._reserved = 0
        self._blocks = len(runner.cache.free)
        self._begin = clock()

    def submit(self, request: Request) -> Answer:
        """Queue a request. Raises ValueError for one that the cache could never hold."""
        if self._room(request) > self._blocks or not request.prompt or request.answer < 1:
            raise ValueError(
                f"a prompt of {len(request.prompt)} with an answer of {request.answer} does not fit"
            )
        answer = Answer(request)
        self.waiting.append(answer)
        return answer

    def serve(self, requests: Iterable[Request]) -> list[Answer]:
        """Serve requests at their arrival times, and return their answers in that order once all are done."""
        due = deque(sorted(requests, key=lambda request: request.arrival_s))
        answers: list[Answer] = []
        self._begin = self.clock()
        while due or self.waiting or self.running:
            while due and due[0].arrival_s <= self._now():
                answers.append(self.submit(due.popleft()))
            if self.waiting or self.running:
                self.step()
            elif due:
                self._sleep(max(0.0, due[0].arrival_s - self._now()))
        return answers

    def step(self) -> None:
        """One step of all that is under way."""
        begin_s = self._now()
        self._admit()
        decoding = [answer for answer in self.running if answer.prompted]
        runs = [Run(a.context, [a.tokens[-1], *a.drafts]) for a in decoding]
        left = self.limits.tokens - sum(len(run.tokens) for run in runs)
        prompting = []
        for answer in (a for a in self.running if not a.prompted):
            first = answer.context.cached
            chunk = answer.request.prompt[first : first + min(self.limits.chunk, max(left, 0))]
            if chunk:
                prompting.append(answer)
                runs.append(Run(answer.context, chunk))
                left -= len(chunk)
        found, hidden = self.runner.step(runs)
        starts = [run.context.cached for run in runs]
        kept = [
            self._take(a, run, after)
            for a, run, after in zip([*decoding, *prompting], runs, found, strict=True)
        ]
        end_s = self._now()
        verified = sum(len(run.tokens) for run in runs[: len(decoding)])
        self.steps.append(
            Step(
                begin_s, end_s, len(decoding), verified, sum(len(r.tokens) for r in runs[len(decoding) :]),
                sum(start + len(run.tokens) for start, run in zip(starts, runs, strict=True)),
            )
        )  # fmt: skip
        for answer in (*decoding, *prompting):
            new = len(answer.tokens) - len(answer.times_s)
            answer.times_s += [end_s] * new
        if self.limits.drafts:
            self._draft([*decoding, *prompting], runs, starts, kept, hidden)
        for answer in [a for a in self.running if a.done]:
            self.running.remove(answer)
            self._reserved -= self._room(answer.request)
            self.runner.cache.release(answer.context.table)

    def _now(self) -> float:
        return self.clock() - self._begin

    def _room(self, request: Request) -> int:
        """Blocks of a request at its longest: prompt, answer, and drafts behind both."""
        return self.runner.cache.needed(len(request.prompt) + request.answer + 2 * self.limits.drafts)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.limits.sequences:
            room = self._room(self.waiting[0].request)
            if self._reserved + room > self._blocks:
                return
            self._reserved += room
            self.running.append(self.waiting.popleft())

    def _take(self, answer: Answer, run: Run, after: Sequence[int]) -> list[int]:
        """Count what a step made of a run; returns the tokens that follow each of its right positions.

        Of a prompt these are the prompt's own, and the first of the answer behind its end. Of an answer with drafts:
        as many as drafts were right, and one more.
        """
        prompt, context = answer.request.prompt, answer.context
        if not answer.prompted:
            context.cached += len(run.tokens)
            if not answer.prompted:
                return list(prompt[context.cached - len(run.tokens) + 1 : context.cached + 1])
            answer.tokens.append(after[-1])
            return [*prompt[context.cached - len(run.tokens) + 1 :], after[-1]]
        right = 0
        while right < len(answer.drafts) and answer.drafts[right] == after[right]:
            right += 1
        answer.verified += bool(answer.drafts)
        answer.accepted += right
        tokens = list(after[: right + 1])[: answer.request.answer - len(answer.tokens)]
        context.cached += len(tokens)
        answer.tokens += tokens
        return tokens

    def _draft(
        self, answers: Sequence[Answer], runs: Sequence[Run], starts: Sequence[int], kept: Sequence[list[int]],
        hidden: Tensor,
    ) -> None:  # fmt: skip
        """New drafts behind every answer that goes on; prompts pass through the module chunk by chunk."""
        wanted: list[tuple[Answer, Run]] = []
        places: list[int] = []
        rows: list[int] = []
        row = 0
        for answer, run, start, tokens in zip(answers, runs, starts, kept, strict=True):
            answer.drafts = []
            if not answer.done:
                wanted.append((answer, Run(run.context, tokens)))
                places.append(start)
                rows += range(row, row + len(tokens))
            row += len(run.tokens)
        if not wanted:
            return
        following = [run for _, run in wanted]
        drafts = self.runner.draft(following, places, hidden[rows], self.limits.drafts)
        for (answer, _), found in zip(wanted, drafts, strict=True):
            if answer.prompted:
                answer.drafts = found[: answer.request.answer - len(answer.tokens) - 1]
