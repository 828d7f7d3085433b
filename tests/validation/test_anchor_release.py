"""An anchor is of one release of its engine."""

import json
from pathlib import Path

import bench_files as files
import pytest

from sim import catalog
from sim.deployment.anchored import anchor_problems
from sim.scenario.loading import parse
from sim.validation.anchor_fit import Factors
from sim.validation.anchors import with_anchor


@pytest.mark.parametrize("told", [True, False])
def test_an_anchor_is_of_a_release_whether_the_scenario_says_it_or_not(tmp_path: Path, told: bool) -> None:
    """As a file of a time when the release was not written where it was the catalog's own."""
    release = catalog.engine("sglang").release
    anchored = with_anchor(parse(files.SCENARIO, "s.yaml").scenario, Factors(1.15), tmp_path)
    assert anchored.anchor is not None
    file = Path(anchored.anchor)
    form = json.loads(file.read_text(encoding="utf-8"))
    assert form["measured_on"]["engine_version"] == release
    if not told:
        del form["measured_on"]["engine_version"]
        file.write_text(json.dumps(form), encoding="utf-8")
    for same in (None, release):
        assert [*anchor_problems(anchored.model_copy(update={"engine_version": same}))] == []
    [problem] = anchor_problems(anchored.model_copy(update={"engine_version": "0.5.9"}))
    assert f"measured on engine_version {release}, and this is 0.5.9; expected an anchor" in problem.message


@pytest.mark.parametrize("odd", [0.5, None, ["sglang"], {"a": 1}])
@pytest.mark.parametrize("key", ["engine", "engine_version"])
def test_an_anchor_of_what_is_no_name_is_one_of_something_else(tmp_path: Path, key: str, odd: object) -> None:
    anchored = with_anchor(parse(files.SCENARIO, "s.yaml").scenario, Factors(1.15), tmp_path)
    assert anchored.anchor is not None
    file = Path(anchored.anchor)
    form = json.loads(file.read_text(encoding="utf-8"))
    form["measured_on"][key] = odd
    file.write_text(json.dumps(form), encoding="utf-8")
    told = [problem.message for problem in anchor_problems(anchored)]
    assert (
        told == [] if (key, odd) == ("engine_version", None) else any(f"measured on {key}" in t for t in told)
    )
