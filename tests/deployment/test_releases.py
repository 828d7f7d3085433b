"""A release that the catalog does not describe takes the rules of the nearest one, and every answer says so."""

from dataclasses import replace
from pathlib import Path

import pytest

import sim
from sim.deployment.engine import engine_of
from sim.deployment.notes import scenario_notes
from sim.scenario.schema import Scenario

FILE = """
model: deepseek-v3
gpu: h200_sxm
engine: {engine}
engine_version: "{release}"
deployment: {{serve: {{gpus: 8, tp: 8}}}}
price: {{usd_per_gpu_hour: 2.0}}
workload:
  requests: 3
  arrivals: {{poisson: {{rate_per_s: 1.0}}}}
  lengths: {{input: {{constant: 100}}, output: {{constant: 4}}}}
"""


def scenario(tmp_path: Path, engine: str, release: str) -> Scenario:
    file = tmp_path / "s.yaml"
    file.write_text(FILE.format(engine=engine, release=release))
    return sim.load(file)


@pytest.mark.parametrize(
    ("engine", "release", "like", "said"),
    [
        ("sglang", "0.4.2", "0.4.6", "those of 0.4.6, the oldest described"),
        ("sglang", "0.9", "0.5.23", "those of 0.5.23, the newest described"),
        ("vllm", "0.2.0", "0.9.0", "those of 0.9.0, the oldest described"),
        ("trtllm", "0.20", "1.1.0rc2", "those of 1.1.0rc2, the oldest described"),
        ("trtllm", "1.5.0rc1", "1.4.0rc1", "those of 1.4.0rc1, the newest described"),
        ("deepseek", "1.0", "0.0", "assumptions: none is published"),
    ],
)
def test_the_nearest_release_stands_in_and_is_named(
    tmp_path: Path, engine: str, release: str, like: str, said: str
) -> None:
    asked, nearest = scenario(tmp_path, engine, release), scenario(tmp_path, engine, like)
    assert replace(engine_of(asked), release=like) == engine_of(nearest)
    [note] = scenario_notes(asked)
    assert note.startswith(f"{engine} {release} is not described") and note.endswith(said)


@pytest.mark.parametrize(
    ("engine", "release"),
    [
        ("sglang", "0.4.6.post5"),
        ("sglang", "0.5.12"),
        ("sglang", "0.5.23"),
        ("vllm", "0.33.0"),
        ("vllm", "0.12"),
        ("trtllm", "1.3.0rc20"),
        ("trtllm", "1.2.0rc6.post2"),
        ("trtllm", "1.3.1"),
    ],
)
def test_releases_that_are_described_need_no_word(tmp_path: Path, engine: str, release: str) -> None:
    assert not [*scenario_notes(scenario(tmp_path, engine, release))]


def test_results_and_estimates_say_it(tmp_path: Path) -> None:
    old = scenario(tmp_path, "sglang", "0.4.2")
    for answer in (sim.simulate(old), sim.estimate(old)):
        assert any("sglang 0.4.2 is not described" in note for note in answer.json()["notes"])


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("deepseek-r1", True),
        ("deepseek-v3", True),
        ("deepseek-v3.1", True),
        ("deepseek-v3.2", True),
        ("deepseek-v4-pro", False),
        ("qwen3-235b-a22b", False),
    ],
)
def test_steps_of_r1_services_are_told_of_its_family_alone(tmp_path: Path, model: str, told: bool) -> None:
    of_model = scenario(tmp_path, "sglang", "0.5.12").model_copy(update={"model": model, "gpu": "b200_sxm"})
    assert any("published steps of R1 services" in note for note in scenario_notes(of_model)) == told
