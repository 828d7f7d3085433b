"""One's own measurement, as factors on the model: `anchor: my-cluster.json`, which `tokenworks validate --bench FILE
--anchor my-cluster.json` writes (docs/bench.md)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from sim import catalog
from sim.files import changed_ns
from sim.frozen import Frozen
from sim.scenario.errors import LocatedProblem, ScenarioError
from sim.scenario.form import check
from sim.scenario.reader import read, read_file
from sim.scenario.schema import Scenario
from sim.scenario.section import NonNegativeFloat, PositiveInt, Section, unit
from sim.units import MILLISECOND_S

SAME: Final = ("model", "gpu", "engine", "engine_version")
"""What an anchor was measured on and a scenario that names it must share. The release, too: on the training half of the
published rows, aggregated, one of another release leaves TPOT further off than none (docs/bench.md)."""
ALIKE: Final = ("deployment", "precision", "speculation")
"""What they should share: where they do not, a note says so."""
LAYOUT: Final = ("gpus", "tp", "ep")
"""Of a worker; its DP is GPUs / TP."""
Layout = Mapping[str, Mapping[str, Any]]
"""By role, `LAYOUT`."""
Added = Annotated[
    float, Field(ge=-1e4, le=1e4, allow_inf_nan=False, strict=True, json_schema_extra=unit("s"))
]


Times = Annotated[float, Field(ge=0.01, le=100, strict=True)]


class AnchorError(Section):
    """Median absolute errors of points that were left out in turn, as shares."""

    tpot: NonNegativeFloat | None = Field(default=None, description="of TPOT")
    ttft: NonNegativeFloat | None = Field(default=None, description="of TTFT")
    throughput: NonNegativeFloat | None = Field(default=None, description="of tokens per second")
    left_out: PositiveInt = Field(description="points, each predicted from all others")


class AnchorFile(Section):
    """The file."""

    step_factor: Times = Field(description="time of every operation of a step, measured over simulated")
    prompt_factor: Times = Field(default=1.0, description="the same of steps with prompts, on top of that")
    step_constant_s: Added = Field(description="time of a step on top of that, seconds")
    ttft_added_s: Added = Field(description="fixed part of TTFT on top of the engine's, seconds")
    measured_on: dict[str, Any] = Field(description="the deployment that was measured")
    points: list[dict[str, Any]] = Field(
        min_length=1, description="what was measured, before and with the anchor"
    )
    error: AnchorError | None = Field(default=None, description="its own; null: one point tells none")
    notes: list[str] = Field(default=[], description="what the points could not tell, in sentences")
    version: str = Field(description="of Tokenworks")


@dataclass(frozen=True, slots=True)
class Anchor:
    """What an anchor does to a deployment."""

    name: str
    """Of its file, without folders."""
    step_factor: float
    prompt_factor: float
    """Of steps with prompts, on top of `step_factor`."""
    step_constant_s: float
    ttft_added_s: float
    points: int
    """That it was made from."""
    error: Mapping[str, Any] | None
    """Its own, see `AnchorError`; None where there was one point."""
    of_this_layout: bool = True
    """Whether it was measured on pools of these roles, GPUs, TP and EP: `error` says nothing of others."""

    def json(self) -> dict[str, Any]:
        """The `anchor` of the JSON of a run."""
        names = ("step_factor", "prompt_factor", "step_constant_s", "ttft_added_s", "points")
        error = None if self.error is None else dict(self.error)
        return {"file": self.name, **{name: getattr(self, name) for name in names}, "error": error}


def read_anchor(name: str) -> Anchor:
    """The anchor in a file; read again where it has changed. Raises ScenarioError with the place of what is wrong."""
    form = _form(name)
    error = None if form.error is None else Frozen(form.error.model_dump())
    factors = (form.step_factor, form.prompt_factor, form.step_constant_s, form.ttft_added_s)
    return Anchor(Path(name).name, *factors, len(form.points), error)


def measured_on(scenario: Scenario) -> dict[str, Any]:
    """What an anchor remembers of the deployment that it is measured on."""
    data = scenario.model_dump(mode="json", exclude_none=True, include={*SAME, *ALIKE})
    for key, names in (("model", catalog.model), ("gpu", catalog.gpu)):
        with suppress(catalog.UnknownName, catalog.ConfigError, ValueError):
            data[key] = names(data[key]).name
    return {key: data[key] for key in (*SAME, *ALIKE) if key in _with_release(data)}


def _with_release(data: dict[str, Any]) -> dict[str, Any]:
    """The same, with the release that a scenario which says none is of: a later catalog may take another."""
    engine, release = data.get("engine"), data.get("engine_version")
    if isinstance(engine, str) and (release is None or isinstance(release, str)):  # a file may say anything
        with suppress(catalog.UnknownName):
            data["engine_version"] = catalog.engine(engine, release).release
    return data


def measured_layout(name: str) -> Layout:
    """Of the deployment that the anchor in a file was measured on."""
    pools = _form(name).measured_on.get("deployment")
    return layout_of(pools) if isinstance(pools, dict) else {}


def layout_of(pools: Mapping[str, Any]) -> Layout:
    """Of pools by role, as a scenario's deployment has them; what stands beside them is none."""
    return {
        role: {key: pool.get(key) for key in LAYOUT}
        for role, pool in pools.items()
        if isinstance(pool, Mapping)
    }


def differences(scenario: Scenario) -> dict[str, tuple[Any, Any]]:
    """Key -> (there, here), where the scenario's deployment is not the one that its anchor was measured on."""
    assert scenario.anchor is not None
    there, here = _with_release({**_form(scenario.anchor).measured_on}), measured_on(scenario)
    return {
        key: (there.get(key), here.get(key)) for key in (*SAME, *ALIKE) if there.get(key) != here.get(key)
    }


def in_words(anchor: Mapping[str, Any]) -> str:
    """The `anchor` of the JSON of a run, as a person reads it."""
    points = "1 measured point" if anchor["points"] == 1 else f"{anchor['points']} measured points"
    return f"{anchor['file']}: {factors_in_words(anchor)}, from {points} of one's own"


def factors_in_words(anchor: Mapping[str, Any]) -> str:
    """What an anchor changes, by the names of its file."""
    constant, added = (anchor[key] / MILLISECOND_S for key in ("step_constant_s", "ttft_added_s"))
    of_prompts = anchor["step_factor"] * anchor["prompt_factor"]
    return (
        f"steps x {anchor['step_factor']:.3f} (with prompts x {of_prompts:.3f}) {constant:+.2f} ms, "
        f"TTFT {added:+.0f} ms"
    )


def _form(name: str) -> AnchorFile:
    return _read(name, changed_ns(Path(name)))


@lru_cache(maxsize=256)
def _read(name: str, _stamp: int) -> AnchorFile:
    tree = read(read_file(Path(name), name), name)
    if not isinstance(tree.value, dict):
        says = "expected an anchor, as `tokenworks validate --bench FILE --anchor OUT.json` writes it"
        raise ScenarioError([LocatedProblem((), says, tree.place)])
    return check(tree, AnchorFile)


def written(form: AnchorFile) -> str:
    """The text of an anchor's file."""
    return json.dumps(form.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
