"""How the steps of an engine's releases lay beside what is priced."""

from pathlib import Path

import pytest

import sim
from sim.catalog import releases
from sim.catalog.releases import ReleaseSteps, known, release_steps
from sim.deployment.notes import scenario_notes
from sim.validation.case import Case
from sim.validation.releases import fitted_on, moved, written

LINES = (
    ReleaseSteps("e", "blackwell", "1.1", 1.10, 1.00, 1.20, 2),
    ReleaseSteps("e", "blackwell", "1.2", 1.00, 0.95, 1.05, 5),
    ReleaseSteps("e", "blackwell", "1.10", 0.90, 0.80, 1.00, 3),
)


@pytest.mark.parametrize(
    ("release", "of", "middle", "ends"),
    [
        ("1.2.0rc6", "1.2", 1.00, (0.95, 1.05)),
        ("1.12", "1.10", 0.90, (0.80, 1.00)),
        ("1.1.5", "all", 1.00, (0.80, 1.20)),  # two layouts are too few
        ("0.9", "all", 1.00, (0.80, 1.20)),
        (None, "all", 1.00, (0.80, 1.20)),  # of 2 x 1.1, 5 x 1.0 and 3 x 0.9 the median
    ],
)
def test_a_release_has_its_own_steps_and_others_the_middle_and_the_range(
    monkeypatch: pytest.MonkeyPatch, release: str | None, of: str, middle: float, ends: tuple[float, float]
) -> None:
    monkeypatch.setattr(releases, "known", lambda: LINES)
    found = release_steps("e", "blackwell", release)
    assert found is not None and (found.release, found.middle, (found.low, found.high)) == (of, middle, ends)
    assert release_steps("e", "hopper", release) is None


def test_layouts_count_once_by_hand() -> None:
    """Layout x: published over simulated 1.1, 1.2 and 1.3, so 1.2; layout y: 0.8, 100 times. Their median is 1."""

    def case(layout: str, ratio: float) -> Case:
        return Case(
            id="A", metric="tpot", published=ratio, simulated=1.0, layout=layout, point="", model="", gpu="b200",
            engine="trtllm", release="1.2", precision="", phase="service",
        )  # fmt: skip

    [line] = moved([*(case("x", ratio) for ratio in (1.1, 1.2, 1.3)), *[case("y", 0.8)] * 100])
    assert (line.generation, line.release, line.layouts) == ("blackwell", "1.2", 2)
    assert (line.middle, line.low, line.high) == (1.0, 0.84, 1.16)


def test_the_shipped_lines_are_those_of_the_shipped_digest() -> None:
    cases = fitted_on()
    assert {case.split for case in cases} == {"train"}
    assert tuple(moved(cases)) == known()
    assert written(moved(cases)).count("\n") == len(known()) + 4


def test_answers_say_it(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    text = (
        "model: deepseek-v3\ngpu: b200\nengine: trtllm\ndeployment: {serve: {gpus: 8, tp: 8}}\n"
        "workload: {requests: 3, arrivals: {poisson: {rate_per_s: 1.0}}, "
        "lengths: {input: {constant: 100}, output: {constant: 4}}}\n"
    )
    file.write_text(text)
    assert any("engine_version is not stated" in note for note in scenario_notes(sim.load(file)))
    file.write_text(text + 'engine_version: "1.2.0rc6"\n')
    assert any(
        note.startswith("trtllm from 1.2 on, published steps") for note in scenario_notes(sim.load(file))
    )
    file.write_text(text.replace("b200", "h200"))
    assert not any("published steps" in note for note in scenario_notes(sim.load(file)))
