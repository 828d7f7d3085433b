"""The anchor of a scenario: one's own measurement of this deployment, and whether it is of this deployment."""

from collections.abc import Iterator
from dataclasses import replace

from sim.scenario.anchor import (
    SAME,
    Anchor,
    differences,
    in_words,
    layout_of,
    measured_layout,
    read_anchor,
)
from sim.scenario.errors import Problem, dotted
from sim.scenario.schema import Scenario


def anchor_of(scenario: Scenario) -> Anchor | None:
    """The scenario's anchor, and whether it is of this layout; None without one. Raises ScenarioError where its file is
    none."""
    if scenario.anchor is None:
        return None
    return replace(read_anchor(scenario.anchor), of_this_layout=_of_this_layout(scenario))


def anchor_problems(scenario: Scenario) -> Iterator[Problem]:
    """An anchor that was measured on another model, GPU, engine or release of it."""
    if scenario.anchor is None:
        return
    for key, (there, here) in differences(scenario).items():
        if key in SAME:
            says = f"measured on {key} {_told(there)}, and this is {_told(here)}; expected an anchor of the same {key}"
            yield Problem(("anchor",), says)


def anchor_notes(scenario: Scenario) -> Iterator[str]:
    """What the anchor does, and where its deployment differs from this one."""
    if scenario.anchor is None:
        return
    yield f"anchored on {in_words(read_anchor(scenario.anchor).json())}"
    changed = [
        told for key, (there, here) in differences(scenario).items() for told in _changed((key,), there, here)
    ]
    if changed:
        told = "; ".join(changed)
        its_error = "" if _of_this_layout(scenario) else ", and its error is not the expected one"
        yield f"the anchor was measured on another deployment: {told}. Its factors may not hold here{its_error}"


def _of_this_layout(scenario: Scenario) -> bool:
    assert scenario.anchor is not None
    return measured_layout(scenario.anchor) == layout_of(scenario.deployment.model_dump())


def _changed(path: tuple[str, ...], there: object, here: object) -> Iterator[str]:
    """The keys below that differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*there, *here)):
            if there.get(key) != here.get(key):
                yield from _changed((*path, str(key)), there.get(key), here.get(key))
    else:
        yield f"{dotted(path)} {_told(there)} there, {_told(here)} here"


def _told(value: object) -> str:
    return "not said" if value is None else str(value)
