"""The cost model in front of a profile: which table prices an operation, and what happens where none does.

Order of choice: the table of a calibrated profile, which somebody measured on GPUs of their own; a back-end that the
operation or `selection.yaml` names; the engine's own table; another engine's table of the same GPU (`source` then
names it); the fallback, which is the roofline. A back-end that the operation names comes first of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Any, Final

import yaml

from sim.catalog import Gpu, efficiency
from sim.catalog.profiles import shipped_profiles
from sim.cost.latency import CostModel, Latency
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Profile, Table, device_gpu, load_profile
from sim.cost.tiles import at_least
from sim.kernels import plays
from sim.model.operations import Operation

SELECTION: Final = Path(__file__).parent / "selection.yaml"


@cache
def selection() -> Mapping[str, Any]:
    """The rules of `selection.yaml`: which back-end is the default where, and who stands in for whom."""
    return yaml.safe_load(SELECTION.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Choice:
    """A table that prices a kind of operation, with the words that say where it comes from."""

    priced: PricedTable
    source: str
    stand_in: str = ""
    """The profile where it is another engine's."""
    own: bool = False
    """Whether it is one of a calibrated profile."""


class ProfileCost:
    """Prices operations by the measurements of one profile; see the module's docstring for the order of choice.

    gpu: the GPU that is priced. Where it is not the one that was measured, every price is scaled by the resource
    that binds the operation, and says so.
    """

    def __init__(self, profile: Profile, fallback: CostModel, gpu: Gpu) -> None:
        self.profile, self.fallback, self.gpu = profile, fallback, gpu
        self.measured_on = device_gpu(profile)
        self._speed = None if self.measured_on == gpu else _speeds(gpu, self.measured_on)
        self._choices: dict[Any, Choice | str] = {}

    def knows(self, operation: Operation) -> bool:
        """Whether a table prices the operation itself; a block is otherwise priced by its parts.

        A calibrated profile that measured parts of a block stands before shipped measurements of the whole.
        """
        if not operation.parts:
            return True
        choice = self._choice(operation)
        if not isinstance(choice, Choice):
            return False
        return choice.own or not any(self._is_own(part) for part in operation.parts)

    def _is_own(self, operation: Operation) -> bool:
        choice = self._choice(operation)
        return isinstance(choice, Choice) and choice.own

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the fallback prices what nothing measured, and `source` says why."""
        choice = self._choice(operation)
        if isinstance(choice, Choice):
            parts = choice.priced.parts(operation.shape)
            bound = choice.priced.bound(operation.shape)
            return replace(Latency.of_parts(parts, choice.source, bound), own=choice.own)
        priced = self.fallback.price(operation)
        return replace(priced, source=f"{priced.source}; {choice}") if choice else priced

    def stand_in(self, operation: Operation) -> str:
        """The profile of another engine that prices the operation; empty where none does."""
        choice = self._choice(operation)
        return choice.stand_in if isinstance(choice, Choice) else ""

    def taken_out_s(self, operation: Operation) -> float:
        """Seconds that were taken out of the measured rows behind a price: launches, unfused norms."""
        choice = self._choice(operation)
        return choice.priced.taken_out_s(operation.shape) if isinstance(choice, Choice) else 0.0

    def experts_beyond(self, operation: Operation) -> str:
        """Says so where a GPU holds another number of routed experts than any that was measured; else empty."""
        choice = self._choice(operation)
        if not isinstance(choice, Choice):
            return ""
        measured, held = choice.priced.table.shape["experts"], operation.shape["experts"]
        least, most = float(measured.min()), float(measured.max())
        if least <= held <= most:
            return ""
        several = f"{least:g} to {most:g}" if least < most else f"{most:g}"
        return f"{choice.source} was measured with {several} experts on a GPU, not {held:g}"

    @cached_property
    def collectives_to(self) -> float:
        """Most GPUs whose collectives were measured, by the profile or by the shipped one of its engine; infinite where
        none were."""
        tables = [
            table
            for profile in self._profiles(self.profile.engine)
            for kernel in profile.kernels
            if plays(kernel, "collective")
            for table in profile.tables(kernel)
        ]
        return max((float(table.shape["gpus"].max()) for table in tables), default=inf)

    @property
    def all_reduce_spans_rack(self) -> bool:
        """Whether the engine's own all-reduce runs among all GPUs of an NVLink domain."""
        return self.profile.engine in selection()["all_reduce_spans_rack"]

    def backends(self, operation: Operation) -> tuple[str, ...]:
        """Back-ends whose tables, of this GPU and any engine, could price the operation, by name."""
        engines = (self.profile.engine, *selection()["stand_in"].get(self.profile.engine, ()))
        return tuple(
            sorted(
                {
                    table.backend
                    for engine in engines
                    for profile in self._profiles(engine)
                    for table in profile.tables(operation.kernel)
                    if _fits(table, operation.dtype, operation.options, "")
                    and not _other_widths(profile, operation)
                }
            )
        )

    def _choice(self, operation: Operation) -> "Choice | str":
        """The table for an operation, or why there is none (empty where nobody would expect one)."""
        shape = operation.shape
        network = (shape.get("nodes", 1.0) > 1, shape.get("gpus", 1.0))
        widths = tuple(operation.widths.items())
        key = (operation.kernel, operation.dtype, tuple(operation.options.items()), network, widths)
        if key not in self._choices:
            self._choices[key] = self._choose(operation)
        return self._choices[key]

    def _choose(self, operation: Operation) -> "Choice | str":
        reason, wanted = "", operation.options
        found: list[tuple[Table, Profile]] = []
        for profile, backend in self._candidates(operation.kernel, operation.dtype, wanted):
            for table in sorted(profile.tables(operation.kernel), key=_generality):
                if _fits(table, operation.dtype, wanted, backend):
                    beyond = _other_widths(profile, operation) or self._beyond(table, operation.shape)
                    reason = reason or beyond
                    found += [] if beyond else [(table, profile)]
        if found:
            return self._chosen(found)
        named = wanted.get("backend")
        return reason or (
            f"no table of back-end {named!r} for {operation.dtype} {operation.kernel}" if named else ""
        )

    def _candidates(
        self, kernel: str, dtype: str, wanted: Mapping[str, str]
    ) -> Iterator[tuple[Profile, str]]:
        """(profile, back-end) in the order of preference; an empty back-end is any."""
        engine, rules = self.profile.engine, selection()
        named = wanted.get("backend", "")
        listed: list[tuple[str, str]] = []
        if not named:
            for rule in rules["prefer"]:
                if _applies(rule, kernel, dtype, engine, self.measured_on.name, wanted):
                    listed += [tuple(use.split(":")) for use in rule["use"]]
        listed += [(other, named) for other in (engine, *rules["stand_in"].get(engine, ()))]
        if self.profile.calibrated:
            yield self.profile, named
        for other, backend in listed:
            for profile in self._profiles(other):
                if not (self.profile.calibrated and profile is self.profile):
                    yield profile, backend

    def _profiles(self, engine: str) -> Iterator[Profile]:
        """The profile itself where it is the engine's, then the shipped one of that engine on the same GPU, or on the
        GPU that is named with it."""
        if engine == self.profile.engine:
            yield self.profile
        name = engine if "/" in engine else f"{self.measured_on.name}/{engine}"
        if name in shipped_profiles() and load_profile(name).path != self.profile.path:
            yield load_profile(name)

    def _chosen(self, found: Sequence[tuple[Table, Profile]]) -> Choice:
        """The first table; where engines run much the same kernels, another engine's carries it beyond its hull.

        One's own is carried by its form: seconds of the same growth would hide how much slower or faster it is.
        """
        table, profile = found[0]
        own, peer = profile.calibrated, None
        if table.kernel in selection()["carried_by_others"] and not own:
            peer = next((PricedTable(t, p.dims) for t, p in found if p.engine != profile.engine), None)
        source = f"{'own ' if own else ''}{profile.name}: {table.backend or table.kernel} ({table.source})"
        stand_in = profile.name if profile.engine != self.profile.engine else ""
        if TAKEN_OUT in table.columns:
            source += ", less launches and unfused norms"
        if stand_in:
            source += f", standing in for {self.profile.engine}"
        if (elsewhere := profile.name.partition("/")[0]) != self.profile.name.partition("/")[0]:
            source += f", as on {elsewhere}"
        form = None
        if table.fit is not None and table.fit.prior is not None:
            prior = table.fit.prior
            table, profile = prior.load()
            assert table.fit is not None
            form = table.fit.form.slower(prior.factor)
            source += f", scaled from {prior.words}"
        if self._speed is not None and table.fit is not None:
            speed = {**self._speed, "compute": self._speed[table.variant.dtype]}
            form = (form or table.fit.form).scaled(table.kernel, speed)
            reached = efficiency().reached.get(self.gpu.name, {})
            form = at_least(form, table.kernel, table.backend, table.variant.dtype, self.gpu, reached)
            source += f", scaled from {self.measured_on.name}"
        return Choice(PricedTable(table, profile.dims, form, peer), source, stand_in, own)

    def _beyond(self, table: Table, shape: Mapping[str, float]) -> str:
        """Why a table says nothing about a shape: it would leave the network that was measured."""
        if shape.get("nodes", 1.0) > 1 and table.shape["nodes"].max() == 1:
            return f"all-to-all on {self.measured_on.name} was not measured over several nodes"
        widest = max(table.shape["gpus"].max(), self.gpu.scale_up_domain) if "gpus" in table.shape else inf
        if shape.get("gpus", 1.0) > widest:
            return f"collectives on {self.measured_on.name} were not measured beyond one NVLink domain"
        return ""


def _other_widths(profile: Profile, operation: Operation) -> str:
    """Why a profile says nothing about an operation: it measured another architecture. Empty where it did not."""
    for name, width in operation.widths.items():
        measured = getattr(profile.dims, name)
        if measured != width:
            return f"{operation.kernel} was measured with {name} {measured}, not {width:g}"
    return ""


def _applies(
    rule: Mapping[str, Any], kernel: str, dtype: str, engine: str, gpu: str, wanted: Mapping[str, str]
) -> bool:
    return (
        rule["kernel"] == kernel
        and engine in rule.get("engines", [engine])
        and gpu in rule.get("gpus", [gpu])
        and dtype == rule.get("dtype", dtype)
        and all(wanted.get(name) == value for name, value in rule.get("options", {}).items())
    )


def _generality(table: Table) -> int:
    """Tables for a special case (such as concentrated scores) come before those for any."""
    return -len(table.variant.options)


def _fits(table: Table, dtype: str, wanted: Mapping[str, str], backend: str) -> bool:
    options = table.variant.options
    return (
        table.variant.dtype == dtype
        and table.fit is not None
        and (not backend or table.backend == backend)
        and all(wanted.get(name) == value for name, value in options.items())
    )


def _speeds(gpu: Gpu, measured: Gpu) -> dict[str, float]:
    """How many times as fast each resource of `gpu` is as that of `measured`, from the datasheets."""
    arithmetic = {
        dtype: (gpu.flop_per_s(dtype) or 0.0) / (measured.flop_per_s(dtype) or 1.0)
        for dtype in ("bf16", "fp8", "nvfp4")
    }
    return {
        **{dtype: ratio or 1.0 for dtype, ratio in arithmetic.items()},
        "fp32": arithmetic["bf16"],
        "memory": gpu.memory_bytes_per_s / measured.memory_bytes_per_s,
        "cache": gpu.memory_bytes_per_s
        / measured.memory_bytes_per_s,  # no datasheet tells: taken as the memory's
        "scale_up": gpu.scale_up_bytes_per_s / measured.scale_up_bytes_per_s,
        "scale_out": gpu.scale_out_bytes_per_s / measured.scale_out_bytes_per_s,
    }
