"""Launch commands: one that a user pastes, as the settings of What-if, and those that start a scenario."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

from dashboard.data.problems import BadInput, said
from dashboard.data.scenarios import confined, names, scenario
from sim import catalog
from sim.launch.read import read_launch
from sim.launch.write import WRITERS, write_launch

MOST_CHARACTERS: Final = 20_000
"""Of a pasted text: hundreds of flags."""


@dataclass(frozen=True)
class Pasted:
    """What a pasted launch command says."""

    scenario: Mapping[str, Any]
    """As plain data; its workload and price are placeholders."""
    not_understood: tuple[str, ...]
    """Flags that matter and that no scenario holds, or that nobody knows."""


@said
def read(text: str, gpu: str) -> Pasted:
    """The scenario of the commands in a text, on a GPU of the catalog. No file of this machine is read.

    Raises BadInput with line and column.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadInput(f"{len(text):,} characters; expected launch commands of at most {MOST_CHARACTERS:,}")
    launch = read_launch(text, gpu, name="command", folder=None)
    confined(launch.text, "command")
    told = tuple(f"{one.flag}: {one.why}" for one in launch.not_modelled)
    notes = tuple(note for note in launch.notes if not note.startswith("placeholders"))
    return Pasted({**launch.scenario, "model": offered_model(launch.scenario["model"])}, (*told, *notes))


def offered_model(model: str) -> str:
    """The name under which What-if offers a model."""
    offered = names()["models"]
    if model in offered:
        return model
    alike = catalog.model(model).name
    for name in offered:
        if catalog.model(name).name == alike:
            return name
    raise BadInput(f"{model} is not offered on this page; expected one of {', '.join(offered)}")


def engines() -> list[str]:
    """Engines that have launch commands."""
    return list(WRITERS)


@st.cache_resource(max_entries=128, show_spinner=False)
@said
def commands(text: str, engine: str) -> tuple[str, tuple[str, ...]]:
    """The commands that start a scenario with an engine, and what they cannot say.

    Raises BadInput where that engine has no such layout.
    """
    written = write_launch(scenario(text), engine)
    return written.text, written.cannot
