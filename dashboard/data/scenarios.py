"""Scenarios: the product's own, those that users bring, and those that the sliders spell."""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import streamlit as st
import yaml

from dashboard.data.problems import BadInput, said
from sim import catalog
from sim.catalog.profiles import shipped_profiles
from sim.cluster.staff import by_the_clock as by_hour
from sim.deployment.plan import deploy
from sim.deployment.profile_choice import ANALYTIC
from sim.scenario.errors import LocatedProblem, ScenarioError
from sim.scenario.form import schema_at
from sim.scenario.loading import FILE_SUFFIXES, from_tree, load, parse, to_yaml
from sim.scenario.reader import MAX_FILE_BYTES, TOO_LARGE, read
from sim.scenario.schema import Scenario
from sim.scenario.tree import Node, walk
from sim.workload import trace
from sim.workload.arrivals import CURVES

FOLDERS: Final = (
    Path(__file__).parent.parent.parent / "scenarios",
    Path(sys.prefix) / "share" / "tokenworks" / "scenarios",
)
"""Where the product's own scenarios lie: in the repository, or installed beside the package."""
FIRST: Final = ("azure-v3.2", "azure-v3.1")
"""What the first page compares."""
HIDDEN: Final = frozenset({"bench"})
"""Scenarios that measure the simulator, not a service."""
CASES: Final = "published/"
"""Scenarios that stand beside a measurement: the Validation page shows them."""
MOST_UPLOADED: Final = 30
"""Uploaded scenarios that the server remembers; the oldest go first."""
MOST_GPUS: Final = 4096
"""GPUs of a worker that a page computes; larger ones are for the command line."""
LONGEST_NAME: Final = 40
SETTINGS: Final = "these settings"
"""What messages call a scenario that the sliders spell."""


def sources() -> dict[str, Path]:
    """The files of the product's own scenarios: name (folder/name in a folder) -> file."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    files = sorted(folder.rglob("*.yaml"), key=lambda f: (len(f.parts), f)) if folder else []
    named = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files} if folder else {}
    return {name: file for name, file in named.items() if name not in HIDDEN and not name.startswith(CASES)}


@st.cache_resource(show_spinner=False)
def shipped() -> dict[str, str]:
    """The product's own scenarios, as applied: name -> YAML text. Files that are none (sweeps, plans) are left out."""
    found: dict[str, str] = {}
    for name, file in sources().items():
        with suppress(ScenarioError):
            found[name] = to_yaml(load(file).scenario)
    return found


@st.cache_resource(show_spinner=False)
def _uploaded() -> dict[str, str]:
    """Scenarios that users gave to this server, so that their links work in a second window."""
    return {}


def every() -> dict[str, str]:
    """Every scenario that a page can pick: name -> YAML text."""
    return shipped() | _uploaded()


def by_the_clock() -> dict[str, str]:
    """Those of them whose load, workers or GPUs change by the hour."""
    return {name: text for name, text in every().items() if by_hour(scenario(text))}


@st.cache_resource(max_entries=256, show_spinner="Computing")
@said
def scenario(text: str) -> Scenario:
    """The scenario of a text that this module gave out."""
    return parse(text).scenario


@said
def spell(data: Mapping[str, Any]) -> str:
    """The YAML text of a scenario given as plain data, defaults left out; `tokenworks run` reads the same.

    Raises BadInput, also where it names a file: the data may stand in the address of a page.
    """
    text: str = yaml.safe_dump(dict(data), sort_keys=False)
    return to_yaml(from_tree(_confined(read(text, SETTINGS))).scenario)


@said
def upload(name: str, raw: bytes) -> str:
    """Check a scenario that a user uploads, and remember it; the name under which it can be picked.

    Raises BadInput, with line and column, for what is too large, no text, no YAML, no scenario, names a file, does not
    fit, or is too large to compute on a page.
    """
    shown = re.sub(r"[^\w.\- ]+", "_", Path(name).name)[:LONGEST_NAME] or "upload"
    loaded = parse(confined(_text(raw), shown), shown)
    with loaded.locating():
        deploy(loaded.scenario)
    largest = max(pool.gpus for pool in loaded.scenario.deployment.pools().values())
    if largest > MOST_GPUS:
        raise BadInput(f"{shown}: a worker of {largest:,} GPUs; this page computes up to {MOST_GPUS:,}")
    text = to_yaml(loaded.scenario)
    label = f"{Path(shown).stem} ({hashlib.sha256(text.encode()).hexdigest()[:4]})"
    uploads = _uploaded()
    uploads[label] = text
    while len(uploads) > MOST_UPLOADED:
        del uploads[next(iter(uploads))]
    return label


def names() -> dict[str, list[str]]:
    """What the catalog offers: models, gpus, engines."""
    releases = ["deepseek-v3.2", "deepseek-v3.1", "deepseek-r1"]
    others = [name for name in catalog.model_names() if name not in ("deepseek-v3", *releases)]
    return {
        "models": [*releases, *others],
        "gpus": list(catalog.gpu_names()),
        "engines": list(catalog.engine_names()),
    }


def tiers(gpu: str) -> list[str]:
    """Price tiers of a GPU; empty where the catalog has no price."""
    return list(catalog.price_tiers(gpu))


def _text(raw: bytes) -> str:
    if len(raw) > MAX_FILE_BYTES:
        raise BadInput(TOO_LARGE)
    if b"\0" in raw:
        raise BadInput("a binary file; expected YAML text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(f"line {line}: not UTF-8 text") from None


def confined(text: str, name: str) -> str:
    """The text, if it names no file: an upload must not read what is on this machine."""
    _confined(read(text, name))
    return text


def _confined(tree: Node) -> Node:
    problems = [
        LocatedProblem(
            path, "an uploaded scenario cannot name files; run it with `tokenworks run`", node.shown
        )
        for path, node in _files(tree)
    ]
    if problems:
        raise ScenarioError(problems)
    return tree


def _files(tree: Node) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """Every value that the loader would take for a file."""
    for path, node in walk(tree):
        if path == ("extends",):
            yield path, node
        elif isinstance(node.value, str) and schema_at(Scenario, path).get("file"):
            value = node.value
            published = catalog.release(value) != value  # such as deepseek-ai/DeepSeek-V3.2
            like_a_file = (
                ("/" in value and not published)
                or "\\" in value
                or Path(value).suffix.lower() in FILE_SUFFIXES
            )
            # Where the catalog's names are few, whatever else is there would be looked for on this machine.
            names = _shipped_names().get(str(path[-1]))
            if value not in names if names is not None else like_a_file:
                yield path, node


@cache
def _shipped_names() -> Mapping[str, frozenset[str]]:
    """What a key may name that takes a file as well."""
    return {
        "profile": frozenset({*shipped_profiles(), ANALYTIC}),
        "trace": frozenset(trace.shipped()),
        "curve": frozenset(file.stem for file in CURVES.glob("*.csv")),
        "histogram": frozenset(),
        "counts": frozenset(),
    }
