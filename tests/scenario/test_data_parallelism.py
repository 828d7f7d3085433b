"""`dp` of a pool: gpus / tp, given instead of tp or beside it."""

import pytest

from sim.scenario.errors import ScenarioError
from sim.scenario.loading import apply, parse, to_yaml

SCENARIO = """\
model: deepseek-v3
gpu: h200_sxm
deployment:
  serve: {gpus: 16, %s ep: 16}
workload: {requests: 4, arrivals: {all_at_once: {}}, lengths: {input: {constant: 9}, output: {constant: 9}}}
"""


def tp(text: str) -> int:
    serve = parse(SCENARIO % text).scenario.deployment.serve
    assert serve
    return serve.tp


@pytest.mark.parametrize(
    ("text", "means"),
    [("dp: 16,", 1), ("dp: 4,", 4), ("dp: 1,", 16), ("dp: 4, tp: 4,", 4), ("dp: 2.0,", 8), ("dp: null,", 1)],
)
def test_tp_follows_from_dp(text: str, means: int) -> None:
    assert tp(text) == means


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dp: 3,", "dp 3 does not divide gpus 16"),
        ("tp: 4, dp: 2,", "tp 4 x dp 2 is 8, not gpus 16; expected tp 8, or dp 4"),
        ("tp: 16, dp: 16,", "SGLang's `--tp 16 --dp 16` is tp 1, dp 16 here"),
        ("tp: 16, dp: 4,", "SGLang's `--tp 16 --dp 4` is tp 4, dp 4 here"),
        ("dp: 0,", "expected a whole number from 1 to 100000, got 0"),
    ],
)
def test_a_contradiction_is_told_at_its_key(text: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(SCENARIO % text)
    [problem] = caught.value.problems
    assert said in problem.message
    assert problem.path == ("deployment", "serve", "dp")
    assert (problem.line, problem.column) == (4, (SCENARIO % text).splitlines()[3].index("dp:") + 5)


def test_an_override_of_one_takes_the_place_of_the_other() -> None:
    by_dp, by_tp = parse(SCENARIO % "dp: 16,"), parse(SCENARIO % "tp: 2,")
    for loaded, key, value in ((by_dp, "tp", 8), (by_tp, "dp", 2)):
        serve = apply(loaded, {f"deployment.serve.{key}": value}).scenario.deployment.serve
        assert serve and serve.tp == 8


def test_a_scenario_with_dp_is_written_and_read_again() -> None:
    scenario = parse(SCENARIO % "dp: 4,").scenario
    assert parse(to_yaml(scenario)).scenario == scenario
