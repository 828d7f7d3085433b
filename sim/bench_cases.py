"""`make bench`: the simulator's speed on the cases of `bench_cases.yaml`, as a table and as JSON.

    python -m sim.bench_cases [CASE ...] [--out FILE.json]

Each case runs in a process of its own, which also runs the bare SimPy loop, before and after: a machine that is busy
slows both, so that their ratio says more than seconds. CPU time is meant throughout.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from sim.bench import SCENARIO, peak_rss_bytes, simpy_floor_events_per_s
from sim.result.books import books
from sim.scenario.loading import load
from sim.simulation import simulate
from sim.steady import steady
from sim.units import MICROSECOND_S, MILLION

CASES: Final = Path(__file__).with_name("bench_cases.yaml")
EVENTS_OF_FLOOR: Final = 5
"""Events of the bare loop to which a request is compared: about as many as it costs."""

Case = Mapping[str, Any]
Figures = dict[str, float]


def cases() -> dict[str, Case]:
    """By name."""
    return dict(yaml.safe_load(CASES.read_text(encoding="utf-8"))["cases"])


def measure(case: Case) -> Figures:
    """The figures of a case, measured in this process."""
    if "commands" in case:
        return _start_up(case["commands"])
    before = simpy_floor_events_per_s(time.process_time)
    if "module" in case:
        figures = _printed_by(["-m", case["module"]])
    else:
        figures = _moves(case) if "moves" in case else _run(case)
    event_s = 2 / (before + simpy_floor_events_per_s(time.process_time))
    if "requests" in figures:
        figures["bare_event_us"] = event_s / MICROSECOND_S
        figures["bare_loops_per_request"] = (
            figures["cpu_s"] / figures["requests"] / (EVENTS_OF_FLOOR * event_s)
        )
    return figures | {"peak_rss_mb": peak_rss_bytes() / MILLION}


def _cpu_s(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def _run(case: Case) -> Figures:
    """One run, step tables and request draws included."""
    path = Path(case.get("scenario", SCENARIO))
    scenario = load(path, case.get("set", ())).scenario
    result, cpu_s = _cpu_s(lambda: simulate(scenario, 0, path.parent))
    requests = books(result.record).totals.arrived
    return {
        "requests": requests,
        "cpu_s": cpu_s,
        "requests_per_s": requests / cpu_s,
        "us_per_event": cpu_s / result.record.events / MICROSECOND_S,
        "events_per_request": result.record.events / requests,
    }


def _moves(case: Case) -> Figures:
    """Estimates at one load after another, as when a slider moves; the first one builds the tables."""
    path, seconds = Path(case["scenario"]), []
    for move in range(case["moves"]):
        scenario = load(path, [f"workload.arrivals={{poisson: {{rate_per_s: {1 + move / 10}}}}}"]).scenario
        seconds.append(_cpu_s(partial(steady, scenario, base_folder=path.parent))[1])
    return {"first_s": seconds[0], "move_s": statistics.median(seconds[1:])}


def _printed_by(arguments: list[str]) -> Figures:
    """The JSON that a Python process prints last."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _start_up(commands: list[list[str]]) -> Figures:
    """Wall seconds of commands, over those of a Python that does nothing: the least of five."""

    def least_s(*arguments: str) -> float:
        def once() -> float:
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            return time.perf_counter() - started

        return min(once() for _ in range(5))

    nothing_s = least_s("-c", "pass")
    return {f"{command[0]} / python": least_s("-m", "sim.cli", *command) / nothing_s for command in commands}


def _printed(what: str, figures: Figures) -> str:
    return f"{what:48}" + "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def main() -> None:
    """Run the cases, each in a process of its own, and print a line for each."""
    parser = argparse.ArgumentParser(description="the simulator's own speed")
    parser.add_argument("case", nargs="*", help="default: all")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    parser.add_argument("--alone", action="store_true", help="measure in this process and print JSON")
    asked = parser.parse_args()
    known = cases()
    names = asked.case or [*known]
    if unknown := set(names) - set(known):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if asked.alone:
        print(json.dumps(measure(known[names[0]])))
        return
    found = {}
    for name in names:
        found[name] = _printed_by(["-m", "sim.bench_cases", "--alone", name])
        print(_printed(f"{name:7} {known[name]['what']}", found[name]), flush=True)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
