"""What the steps of a run were made of."""

import bench_files as files

from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.validation.runs import Trial, run_trial


def at_four(*changes: str) -> Scenario:
    arrivals = "workload.arrivals.closed_loop.concurrency=4"
    return parse(files.SCENARIO, "s.yaml", [arrivals, "workload.requests=24", *changes]).scenario


def test_what_a_step_is_made_of_is_told_where_that_was_asked_for_and_a_step_was_seen() -> None:
    """Answers of one token have no TPOT."""
    seen, unseen = at_four(), at_four("workload.lengths.output.uniform=[1, 1]")
    assert run_trial(Trial(seen, 0, 4, 24, composed=True)).composition
    assert run_trial(Trial(seen, 0, 4, 24)).composition is None
    answer = run_trial(Trial(unseen, 0, 4, 24, composed=True))
    assert answer.outcome is not None and "tpot" not in answer.outcome.values
    assert answer.composition is None
