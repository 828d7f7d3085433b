"""Lengths: the distributions are the ones asked for."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Length
from sim.workload.lengths import draw
from sim.workload.prompts import Prompts

KEY = ("workload", "lengths", "input")


def sample(form: dict[str, object], count: int, folder: Path | None = None, seed: int = 7) -> np.ndarray:
    return draw(Length(**form), np.random.default_rng(seed), folder, KEY)(count)


def test_constant_is_constant() -> None:
    assert sample({"constant": 250}, 4).tolist() == [250, 250, 250, 250]


def test_uniform_reaches_both_ends_and_nothing_else() -> None:
    tokens = sample({"uniform": (3, 6)}, 4000)
    assert set(tokens.tolist()) == {3, 4, 5, 6}
    # Chi-square of four equal shares; 16.27 is the 0.1% point of three degrees of freedom.
    counts = np.bincount(tokens)[3:]
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 16.27


def test_lognormal_has_its_own_mean_and_cv_not_those_of_the_logarithm() -> None:
    tokens = sample({"lognormal": {"mean": 1000.0, "cv": 1.0}}, 200_000)
    # Standard error of the mean: 1000 / sqrt(200,000) = 2.2; four of them.
    assert abs(tokens.mean() - 1000) < 9
    assert abs(tokens.std() / tokens.mean() - 1) < 0.03
    # The median of a lognormal is mean / sqrt(1 + cv^2) = 707.1; a mix-up with exp(mean) would be far off.
    assert abs(np.median(tokens) - 1000 / math.sqrt(2)) < 8


def test_lognormal_is_lognormal() -> None:
    tokens = sample({"lognormal": {"mean": 50_000.0, "cv": 0.5}}, 20_000)
    sigma = math.sqrt(math.log(1.25))
    expected = stats.lognorm(s=sigma, scale=50_000 / math.sqrt(1.25))
    assert stats.kstest(tokens, expected.cdf).pvalue > 0.001


@given(mean=st.floats(1, 1e7), cv=st.floats(0.001, 100))
@settings(max_examples=50, deadline=None)
def test_lengths_are_whole_and_at_least_one(mean: float, cv: float) -> None:
    tokens = sample({"lognormal": {"mean": mean, "cv": cv}}, 200)
    assert tokens.dtype == np.int64
    assert tokens.min() >= 1


@given(parts=st.lists(st.integers(0, 50), min_size=1, max_size=5), kind=st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_draws_continue_one_another(parts: list[int], kind: int) -> None:
    form = ({"uniform": (1, 9)}, {"lognormal": {"mean": 30.0, "cv": 2.0}}, {"constant": 4})[kind]
    source = draw(Length(**form), np.random.default_rng(3), None, KEY)
    pieces = np.concatenate([source(n) for n in parts])
    assert pieces.tolist() == sample(form, sum(parts), seed=3).tolist()


def test_histogram_follows_the_weights(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("tokens,weight\n10,1\n20,0\n4000,3\n")
    tokens = sample({"histogram": "h.csv"}, 10_000, tmp_path)
    assert set(tokens.tolist()) == {10, 4000}
    # 7,500 expected with a standard deviation of sqrt(10,000 x 0.75 x 0.25) = 43; four of them.
    assert abs((tokens == 4000).sum() - 7500) < 174


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("tokens,weight\n10,1\n20,heavy\n", "h.csv:3:4", "weight: expected a number, got 'heavy'"),
        (
            "tokens,weight\n10,1\n20,-1e308\n",
            "h.csv:3:4",
            "weight: expected at most 1e+24 in size, got -1e+308",
        ),
        ("tokens,weight\n10,1\n20,-2\n", "h.csv:3:4", "weight: expected at least 0"),
        ("tokens,weight\n0,1\n", "h.csv:2:1", "tokens: expected at least 1, got 0"),
        ("tokens,weight\n2.5,1\n", "h.csv:2:1", "tokens: expected a whole number, got 2.5"),
        ("tokens,weight\n10,1,1\n", "h.csv:2:6", "expected 2 cells (tokens,weight), got 3"),
        ("tokens,share\n10,1\n", "h.csv:1:1", "expected columns tokens, weight; got tokens, share"),
        ("tokens,weight\n10,0\n", "h.csv", "all weights are zero"),
        ("tokens,weight\n", "h.csv", "has no rows"),
        ("", "h.csv", "has no rows"),
    ],
)
def test_a_broken_histogram_is_one_error_with_its_place(
    tmp_path: Path, text: str, place: str, says: str
) -> None:
    (tmp_path / "h.csv").write_text(text)
    with pytest.raises(ScenarioError) as raised:
        sample({"histogram": "h.csv"}, 1, tmp_path)
    (problem,) = raised.value.problems
    assert str(problem.place) == str(tmp_path / place)
    assert says in problem.message


def test_a_missing_histogram_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError) as raised:
        sample({"histogram": "none.csv"}, 1, tmp_path)
    (problem,) = raised.value.problems
    assert problem.path == ("workload", "lengths", "input", "histogram")


def test_cached_tokens_are_rounded_and_leave_one_to_compute() -> None:
    inputs = np.array([1, 2, 3, 1000, 1001])
    half = Prompts.of(inputs, inputs).with_cached(0.5)
    # 0.5 -> 0, 1.0, 1.5 -> 2, 500, 500.5 -> 500 (to even)
    assert half.cached_tokens.tolist() == [0, 1, 2, 500, 500]
    assert Prompts.of(inputs, inputs).with_cached(1.0).cached_tokens.tolist() == [0, 1, 2, 999, 1000]
    assert Prompts.of(inputs, inputs).with_cached(0.0).cached_tokens.tolist() == [0] * 5
