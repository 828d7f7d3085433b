"""The cost model in front of a profile: which table prices an operation, and what happens where none does.

Order of choice: a back-end that the operation or `selection.yaml` names; the engine's own table; another
engine's table of the same GPU (`source` then names it); the fallback, which is the roofline.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Any, Final

import yaml

from sim.catalog import Gpu, efficiency
from sim.catalog.profiles import is_shipped, shipped_profiles
from sim.cost.latency import CostModel, Latency
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Profile, Table, device_gpu, load_profile
from sim.cost.tiles import at_least
from sim.kernels import plays
from sim.model.operations import Operation

AS_FP8: Final = ("mxfp4",)
"""Formats whose kernels, where none was measured, are taken to reach what FP8's do: of the bandwidth with their own
bytes, of the arithmetic at their own rate (Marlin on Hopper)."""
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


class ProfileCost:
    """Prices operations by the measurements of one profile; see the module's docstring for the order of choice.

    gpu: the GPU that is priced. Where it is not the one that was measured, every price is scaled by the resource
    that binds the operation, and says so.
    model: whose own profiles, where they are shipped, come before those of V3's kernels.
    """

    def __init__(self, profile: Profile, fallback: CostModel, gpu: Gpu, model: str = "") -> None:
        self.profile, self.fallback, self.gpu, self.model = profile, fallback, gpu, model
        self.measured_on = device_gpu(profile)
        self._choices: dict[Any, Choice | str] = {}

    def knows(self, operation: Operation) -> bool:
        """Whether a table prices the operation itself; a block is otherwise priced by its parts."""
        return not operation.parts or isinstance(self._choice(operation), Choice)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the fallback prices what nothing measured, and `source` says why."""
        choice = self._choice(operation)
        if isinstance(choice, Choice):
            parts = choice.priced.parts(operation.shape)
            return Latency.of_parts(parts, choice.source, choice.priced.bound(operation.shape))
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
        """Most GPUs whose collectives the profile measured; infinite where it measured none."""
        measured = [kernel for kernel in self.profile.kernels if plays(kernel, "collective")]
        tables = [table for kernel in measured for table in self.profile.tables(kernel)]
        return max((float(table.shape["gpus"].max()) for table in tables), default=inf)

    @property
    def all_reduce_spans_rack(self) -> bool:
        """Whether the engine's own all-reduce runs among all GPUs of an NVLink domain."""
        return self.profile.engine in selection()["all_reduce_spans_rack"]

    def backends(self, operation: Operation) -> tuple[str, ...]:
        """Back-ends whose tables, of this GPU and any engine, could price the operation, by name."""
        engines = (self.profile.engine, *selection()["stand_in"].get(self.profile.engine, ()))
        found = {
            table.backend
            for engine in engines
            for profile in self._profiles(engine, operation.kernel)
            for table in profile.tables(operation.kernel)
            if _fits(table, operation.dtype, operation.options, "") and not _other_widths(profile, operation)
        }
        if not found and operation.dtype in AS_FP8:
            return self.backends(replace(operation, dtype="fp8"))
        return tuple(sorted(found))

    def _choice(self, operation: Operation) -> "Choice | str":
        """The table for an operation, or why there is none (empty where nobody would expect one)."""
        shape = operation.shape
        network = (shape.get("nodes", 1.0) > 1, shape.get("gpus", 1.0))
        widths = tuple(operation.widths.items())
        key = (operation.kernel, operation.dtype, tuple(operation.options.items()), network, widths)
        if key not in self._choices:
            self._choices[key] = self._choose(operation)
        return self._choices[key]

    def _choose(self, operation: Operation, meant: str = "") -> "Choice | str":
        """`meant`: the operation's own format, where it is looked for in another one's tables."""
        reason, wanted = "", operation.options
        found: list[tuple[Table, Profile]] = []
        foreign: list[tuple[Table, Profile]] = []
        for engine, backend in self._candidates(operation.kernel, operation.dtype, wanted):
            for profile in self._profiles(engine, operation.kernel):
                for table in sorted(profile.tables(operation.kernel), key=_generality):
                    if _fits(table, operation.dtype, wanted, backend):
                        beyond = _other_widths(profile, operation) or self._beyond(table, operation.shape)
                        reason = reason or beyond
                        own = backend or not self.model or profile.header.get("model") == self.model
                        (found if own else foreign).extend([] if beyond else [(table, profile)])
        if found or foreign:
            return self._chosen([*found, *foreign], meant or operation.dtype)
        if operation.dtype in AS_FP8:
            as_fp8 = self._choose(replace(operation, dtype="fp8"), operation.dtype)
            if isinstance(as_fp8, Choice):
                return as_fp8
        named = wanted.get("backend")
        return reason or (
            f"no table of back-end {named!r} for {operation.dtype} {operation.kernel}" if named else ""
        )

    def _candidates(self, kernel: str, dtype: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """(engine, back-end) in the order of preference; an empty back-end is any."""
        own, rules = self.profile.engine, selection()
        named = wanted.get("backend", "")
        if not named:
            for rule in rules["prefer"]:
                if _applies(rule, kernel, dtype, own, self.measured_on.name, wanted):
                    yield from (tuple(use.split(":")) for use in rule["use"])
        for engine in (own, *rules["stand_in"].get(own, ())):
            yield engine, named

    def _profiles(self, engine: str, kernel: str) -> Iterator[Profile]:
        """The shipped one of the model's own kernels; the profile itself where it is the engine's; the shipped one of
        that engine on the same GPU; and that of the model's own kernels on a GPU that stands in for it."""
        name = f"{self.measured_on.name}/{engine}"
        if self.model and is_shipped(own := f"{name}/{self.model}"):
            yield load_profile(own)
        if engine == self.profile.engine:
            yield self.profile
        if name in shipped_profiles() and load_profile(name).path != self.profile.path:
            yield load_profile(name)
        other = selection()["stand_in_gpus"].get(kernel, {}).get(self.measured_on.name)
        if other and is_shipped(own := f"{other}/{engine}/{self.model}"):
            yield load_profile(own)

    def _chosen(self, found: Sequence[tuple[Table, Profile]], dtype: str) -> Choice:
        """The first table; where engines run much the same kernels, another engine's carries it beyond its hull."""
        table, profile = found[0]
        peer = None
        if table.kernel in selection()["carried_by_others"]:
            peer = next((PricedTable(t, p.dims) for t, p in found if p.engine != profile.engine), None)
        source = f"{profile.name}: {table.backend or table.kernel} ({table.source})"
        stand_in = profile.name if profile.engine != self.profile.engine else ""
        if TAKEN_OUT in table.columns:
            source += ", less launches and unfused norms"
        if stand_in:
            source += f", standing in for {self.profile.engine}"
        form, meant = None, replace(table.variant, dtype=dtype)
        measured = self.measured_on if profile.gpu == self.measured_on.name else device_gpu(profile)
        if table.fit is not None and (measured != self.gpu or meant != table.variant):
            speed = _speeds(self.gpu, measured)
            speed["compute"] = speed[table.variant.dtype]
            if meant != table.variant:
                speed["compute"] *= _rate(self.gpu, dtype) / _rate(self.gpu, table.variant.dtype)
                source += f", scaled to {dtype}"
            form = table.fit.form.scaled(table.kernel, speed)
            reached = efficiency().reached.get(self.gpu.name, {})
            form = at_least(form, table.kernel, table.backend, dtype, self.gpu, reached)
            source += f", scaled from {measured.name}" if measured != self.gpu else ""
        return Choice(PricedTable(table, profile.dims, form, peer, meant), source, stand_in)

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


def _rate(gpu: Gpu, dtype: str) -> float:
    """FLOP/s by the datasheet."""
    return gpu.flop_per_s(dtype) or gpu.bf16_flop_per_s


def _speeds(gpu: Gpu, measured: Gpu) -> dict[str, float]:
    """How many times as fast each resource of `gpu` is as that of `measured`, from the datasheets."""
    arithmetic = {
        dtype: (gpu.flop_per_s(dtype) or 0.0) / (measured.flop_per_s(dtype) or 1.0)
        for dtype in ("bf16", "fp8", "mxfp4", "nvfp4")
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
