"""A plan tells of workers that are smaller than all that can be built, and that a setting would make fit."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sim.planner.plan import _narrow
from sim.planner.search import Found


def refused(gpus: int, changes: str, gpu: str = "h200_sxm") -> Any:
    job = SimpleNamespace(setting={"gpu": gpu}, shape={"gpus": gpus, "tp": gpus, "ep": 1})
    return SimpleNamespace(job=job, why=f"does not fit: 1.3 GB missing on each GPU; {changes}")


def found(*refusals: Any, built: int = 16) -> Found:
    candidate = SimpleNamespace(setting={"gpu": "h200_sxm"}, pools={"serve": {"gpus": built}})
    entries = [SimpleNamespace(screened=SimpleNamespace(candidate=candidate))]
    return cast("Found", SimpleNamespace(entries=entries, refused=[*refusals]))


def test_the_smallest_worker_that_a_setting_would_make_fit_is_told_with_it() -> None:
    release = 'would fit: gpus 16, ep 16; or engine_version "0.5.16", which holds less; or gpu b200_sxm'
    told = [*_narrow(found(refused(4, "no smaller change fits"), refused(8, release), refused(8, release)))]
    assert told == [
        "8 x h200_sxm (tp 8, ep 1): does not fit: 1.3 GB missing on each GPU; would fit with engine_version "
        '"0.5.16", which holds less'
    ]


@pytest.mark.parametrize(
    ("gpus", "changes"), [(8, "would fit: gpu b200_sxm"), (16, "would fit: memory_fraction 0.95")]
)
def test_other_gpus_and_workers_as_large_as_those_that_are_built_are_not(gpus: int, changes: str) -> None:
    assert [*_narrow(found(refused(gpus, changes)))] == []
