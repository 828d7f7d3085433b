"""One case of the fuzzer: a scenario through the command, in this process, and what is wrong with how it ended."""

import json
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

import yaml
from fuzz_asked import ASKED, plan
from fuzz_bases import GOOD, WRITTEN
from fuzz_files import FILES, PROFILE
from fuzz_mutations import broken_file, mutated
from fuzz_pages import LONGEST, page
from typer.testing import CliRunner

from sim.cli import app

RUNNER: Final = CliRunner()
SCENARIOS, PAGES = "scenarios", "pages"
GIVEN: Final = FILES | ASKED
TRIED: Final = {PAGES: page, "plans": plan}
KINDS: Final = (SCENARIOS, *GIVEN, *TRIED)
"""What is mutated."""
FAR: Final = 100.0
"""Times that a broken profile may price a step off."""
PHASES: Final = ("decode", "prefill")
REQUESTS: Final = 20
"""Of a short run."""
WAITING: Final = 15
"""Seconds of the clock for one that a command may compute: the machine may do other things."""
LONGEST_MESSAGE: Final = 20_000
"""Characters of an error that are still an answer."""
ENDS: Final = (0, 2)
"""Exit codes: done, and bad input. 1 says that an invariant did not hold, or a traceback."""
SHARES: Final = ("utilization", "priced_by")
"""Sections of which no number is above 1."""
SIGNED: Final = ("expected_error", "error", "bias", "prompts")
"""`prompts`: what is left of a published TPOT when the steps are taken off."""


@dataclass(frozen=True)
class Verdict:
    """How a case ended. `fault` is empty where nothing is wrong with that."""

    number: int
    base: str
    passed: bool
    """The check let it through."""
    fault: str = ""
    """Kind and place, the same for the same fault."""
    detail: str = ""


class TookTooLong(BaseException):
    """No Exception, so that nothing on the way takes it for one of its own."""


def text_of(seed: int, number: int, folder: Path, bases: list[str]) -> tuple[str, str]:
    """(base, text) of case `number`; what the text names is beside it in `folder`."""
    rng = random.Random(f"{seed}/{number}")
    base = rng.choice(bases if rng.random() < 0.5 else sorted(WRITTEN))
    text = mutated((folder / base).read_text(encoding="utf-8"), rng)
    named = [name for name in GOOD if f"files/{name}" in text]
    if named and rng.random() < 0.7:
        name = rng.choice(named)
        text = text.replace(f"files/{name}", broken_file(name, folder, rng))
    return base, text


def judge(
    seed: int, number: int, folder: Path, bases: list[str], run: bool, limit_s: float, kind: str = SCENARIOS
) -> Verdict:
    """Put case `number` through its commands: a scenario through `check`, and if it passes and `run` is asked for
    through `explain` and a short run; of files all commands, one after the other."""
    if kind in TRIED:
        return _page(seed, number, folder, bases, limit_s, kind)
    if kind == SCENARIOS:
        base, text = text_of(seed, number, folder, bases)
        file = (folder / base).with_name("case.yaml")
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        first, more = ["check", str(file), "--json"], [
            ["explain", str(file), "--json", "--phase", PHASES[number % len(PHASES)]],
            ["run", str(file), "--json", "--set", f"workload.requests={_requests(text)}"],
        ] * run  # fmt: skip
    else:
        given = GIVEN[kind](folder, random.Random(f"{kind}/{seed}/{number}"))
        base, text, (first, *more) = kind, given.text, given.commands
    passed, fault, detail = _tried(first, limit_s)
    for command in more if passed and not fault else ():
        done, fault, detail = _tried(command, limit_s)
        if fault or (kind != SCENARIOS and not done):
            fault = fault and f"{command[0]}: {fault}"
            break
        if kind == "profiles" and command[0] == "explain":
            fault, detail = _near(detail, _whole_step_s(command[1]))
    return Verdict(number, base, passed, fault, f"{detail}\n{text[:3000]}" if fault else "")


def _page(seed: int, number: int, folder: Path, bases: list[str], limit_s: float, kind: str) -> Verdict:
    """What a page or a reader is given: a value, or BadInput in few words."""
    from dashboard.data.problems import BadInput  # noqa: PLC0415 - streamlit takes a second

    attempt, text = TRIED[kind](folder, random.Random(f"{kind}/{seed}/{number}"), bases)
    try:
        with _within(limit_s):
            attempt()
    except BadInput as wrong:
        fault = "message too long" if len(str(wrong)) > LONGEST else ""
        return Verdict(number, kind, False, fault, text[:3000] if fault else "")
    except TookTooLong as late:
        return Verdict(number, kind, False, f"hang at {_place(late)}", text[:3000])
    except Exception as error:
        told = "".join(traceback.format_exception(error))[-3000:]
        return Verdict(
            number, PAGES, False, f"{type(error).__name__} at {_place(error)}", f"{told}\n{text[:3000]}"
        )
    return Verdict(number, kind, True)


def _near(stdout: str, whole_s: float) -> tuple[str, str]:
    """(what is wrong, more about it) of a step that a broken profile priced: it passed the check, so that what is
    broken is at most a few rows, and no step takes a hundred times as long as it should."""
    step_s = json.loads(stdout.splitlines()[-1])["step_s"]
    if whole_s / FAR <= step_s <= whole_s * FAR:
        return "", ""
    return "priced in silence", f"a step takes {step_s:g} s, and {whole_s:g} s with the whole profile"


@cache
def _whole_step_s(scenario: str) -> float:
    """Seconds of the same step priced by the profile that the broken ones are copies of."""
    shipped = f"profile={PROFILE.parent.name}/{PROFILE.name}"
    told = RUNNER.invoke(app, ["explain", scenario, "--json", "--set", shipped])
    return float(json.loads(told.stdout.splitlines()[-1])["step_s"])


def _requests(text: str) -> int:
    """Requests of a short run: what the scenario says, if that is fewer."""
    try:
        asked = yaml.safe_load(text)["workload"]["requests"]
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        return REQUESTS
    return min(asked, REQUESTS) if isinstance(asked, int) else REQUESTS


def _tried(command: list[str], limit_s: float) -> tuple[bool, str, str]:
    """(exit code 0, what is wrong, more about it) of one command."""
    try:
        with _within(limit_s), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            told = RUNNER.invoke(app, command)
    except TookTooLong as late:
        return False, f"hang at {_place(late)}", traceback.format_exc()[-3000:]
    error = told.exception
    if error is not None and not isinstance(error, SystemExit):
        lines = "".join(traceback.format_exception(error))
        return False, f"{type(error).__name__} at {_place(error)}", f"{str(error)[:300]}\n{lines[-3000:]}"
    if told.exit_code not in ENDS:
        return False, f"exit code {told.exit_code}", told.stderr[-2000:]
    if told.exit_code and len(told.stderr) > LONGEST_MESSAGE:
        return False, "message too long", f"{len(told.stderr):,} characters: {told.stderr[:300]}"
    if told.exit_code:
        return False, "", ""
    fault, detail = _answered(told.stdout)
    return True, fault, detail if fault else told.stdout


@contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Inside, TookTooLong after so many seconds of the processor (a busy machine has none for it), or of waiting."""
    alarms = (
        (signal.SIGPROF, signal.ITIMER_PROF, limit_s),
        (signal.SIGALRM, signal.ITIMER_REAL, WAITING * limit_s),
    )
    for number, timer, seconds in alarms:
        signal.signal(number, _stop)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in alarms:
            signal.setitimer(timer, 0)


def _answered(stdout: str) -> tuple[str, str]:
    """(what is wrong, more about it) of an answer: its last line is JSON, and its figures can be."""
    try:
        data = json.loads(stdout.splitlines()[-1], parse_constant=_no_number)
    except (ValueError, IndexError) as error:
        return "no JSON", str(error)
    wrong = [*_figures({key: value for key, value in data.items() if key != "scenario"}, "")]
    return "; ".join(f"figure {figure.split('=')[0]}" for figure in wrong[:3]), str(wrong[:20])


def _figures(node: Any, path: str, share: bool = False) -> Iterator[str]:
    """Figures that cannot be: negative, not finite, or a share above 1."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in SIGNED:
                yield from _figures(value, f"{path}.{key}", share or key in (*SHARES, "share"))
    elif isinstance(node, list):
        for item in node:
            yield from _figures(item, f"{path}[]", share)
    elif isinstance(node, int | float) and not 0 <= node <= (1 + 1e-9 if share else sys.float_info.max):
        yield f"{path}={node!r}"


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TookTooLong


def _place(error: BaseException) -> str:
    """The last line of our own code on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f"{Path('/')}sim{Path('/')}" in f.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].name}"
