"""The cost model in front of a profile: which table prices an operation, and what happens where none does.

Order of choice: the table of a calibrated profile, which somebody measured on GPUs of their own; a back-end that the
operation or `selection.yaml` names; the engine's own table; another engine's table of the same GPU (`source` then
names it); the fallback, which is the roofline. A back-end that the operation names comes first of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any, Final

from sim.catalog import Gpu, efficiency
from sim.catalog.profiles import is_shipped, shipped_profiles
from sim.cost.latency import CostModel, Latency
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Profile, Table, device_gpu, load_profile, prior_table
from sim.cost.selection import applies, fits, generality, other_widths, selection
from sim.cost.speeds import datasheet_rate, speeds
from sim.cost.tiles import at_least
from sim.kernels import FAMILIES, plays
from sim.model.operations import Operation

AS_FP8: Final = ("mxfp4",)
"""Formats whose kernels, where none was measured, are taken to reach what FP8's do: of the bandwidth with their own
bytes, of the arithmetic at their own rate (Marlin on Hopper)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A table that prices a kind of operation, with the words that say where it comes from."""

    priced: PricedTable
    source: str
    stand_in: str = ""
    """The profile where it is another engine's."""
    own: bool = False
    """Whether it is one of a calibrated profile."""
    includes: tuple[str, ...] = ()
    """See `Table.includes`."""


class ProfileCost:
    """Prices operations by the measurements of one profile; see the module's docstring for the order of choice.

    gpu: the GPU that is priced. Where it is not the one that was measured, every price is scaled by the resource
    that binds the operation, and says so.
    model: whose own profiles, where they are shipped, come before those of V3's kernels.
    """

    def __init__(self, profile: Profile, fallback: CostModel, gpu: Gpu, model: str = "") -> None:
        self.profile, self.fallback, self.gpu, self.model = profile, fallback, gpu, model
        self.measured_on = device_gpu(profile)
        self.as_timed = profile.as_timed and not profile.calibrated
        """Whether shipped tables price with what the import took out of them; those beside one's own do not."""
        self._choices: dict[Any, Choice | str] = {}

    def knows(self, operation: Operation) -> bool:
        """Whether a table prices the operation itself; a block is otherwise priced by its parts.

        A calibrated profile that measured parts of a block stands before shipped measurements of the whole.
        """
        choice = self._choice(operation)
        if not isinstance(choice, Choice):
            return not operation.parts
        if choice.own or not self.profile.calibrated:
            return True
        return not any(self._is_own(part) for part in operation.parts)

    def _is_own(self, operation: Operation) -> bool:
        choice = self._choice(operation)
        return isinstance(choice, Choice) and choice.own

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the fallback prices what nothing measured, and `source` says why."""
        if product := self._inside_product(operation):
            return Latency(0.0, "measured", f"in the product's time: {product.source}", "memory")
        choice = self._choice(operation)
        if isinstance(choice, Choice):
            parts = choice.priced.parts(operation.shape)
            bound = choice.priced.bound(operation.shape)
            return Latency.of_parts(parts, choice.source, bound, choice.own)
        priced = self.fallback.price(operation)
        return replace(priced, source=f"{priced.source}; {choice}") if choice else priced

    def _inside_product(self, operation: Operation) -> Choice | None:
        """The table of the product that an operation feeds, where the product's rows were timed with it."""
        if not operation.feeds:
            return None
        product = self._choice(replace(operation, kernel="gemm", dtype=operation.feeds, options={}))
        return product if isinstance(product, Choice) and operation.kernel in product.includes else None

    def stand_in(self, operation: Operation) -> str:
        """The profile of another engine that prices the operation; empty where none does, or its product's rows do."""
        if self._inside_product(operation):
            return ""
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
            for kernel in FAMILIES
            if plays(kernel, "collective")
            for profile in self._profiles(self.profile.engine, kernel)
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
        found = {
            table.backend
            for engine in engines
            for profile in self._profiles(engine, operation.kernel)
            for table in profile.tables(operation.kernel)
            if fits(table, operation.dtype, operation.options, "") and not other_widths(profile, operation)
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
        for profile, backend in self._candidates(operation.kernel, operation.dtype, wanted):
            for table in sorted(profile.tables(operation.kernel), key=generality):
                if fits(table, operation.dtype, wanted, backend):
                    beyond = other_widths(profile, operation) or self._beyond(table, operation.shape)
                    reason = reason or beyond
                    first = backend or profile.calibrated or not self.model or self._is_models(profile)
                    (found if first else foreign).extend([] if beyond else [(table, profile)])
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

    def _candidates(
        self, kernel: str, dtype: str, wanted: Mapping[str, str]
    ) -> Iterator[tuple[Profile, str]]:
        """(profile, back-end) in the order of preference; an empty back-end is any."""
        engine, rules = self.profile.engine, selection()
        named = wanted.get("backend", "")
        listed: list[tuple[str, str]] = []
        if not named:
            for rule in rules["prefer"]:
                if applies(rule, kernel, dtype, engine, self.measured_on.name, wanted):
                    listed += [tuple(use.split(":")) for use in rule["use"]]
        listed += [(other, named) for other in (engine, *rules["stand_in"].get(engine, ()))]
        if self.profile.calibrated:
            yield self.profile, named
        for other, backend in listed:
            for profile in self._profiles(other, kernel):
                if not (self.profile.calibrated and profile is self.profile):
                    yield profile, backend

    def _profiles(self, engine: str, kernel: str) -> Iterator[Profile]:
        """The shipped one of the model's own kernels; the profile itself where it is the engine's; the shipped one of
        that engine on the same GPU, or on the GPU that is named with it; and that of the model's own kernels on a GPU
        that stands in for it."""
        name = engine if "/" in engine else f"{self.measured_on.name}/{engine}"
        if self.model and is_shipped(own := f"{name}/{self.model}"):
            yield load_profile(own, self.as_timed)
        if engine == self.profile.engine:
            yield self.profile
        if name in shipped_profiles() and load_profile(name).path != self.profile.path:
            yield load_profile(name, self.as_timed)
        other = selection()["stand_in_gpus"].get(kernel, {}).get(self.measured_on.name)
        if other and is_shipped(own := f"{other}/{engine}/{self.model}"):
            yield load_profile(own, self.as_timed)

    def _chosen(self, found: Sequence[tuple[Table, Profile]], dtype: str) -> Choice:
        """The first table; where engines run much the same kernels, another engine's carries it beyond its hull.

        One's own is carried by its form: seconds of the same growth would hide how much slower or faster it is.
        """
        table, profile = found[0]
        own, peer = profile.calibrated, None
        if table.kernel in selection()["carried_by_others"] and not own:
            peer = next((PricedTable(t, p.dims) for t, p in found if p.engine != profile.engine), None)
        source = f"{'own ' if own else ''}{profile.name}: {table.backend or table.kernel} ({table.source})"
        if includes := table.includes:
            source += f", timed with {' and '.join(FAMILIES[name].words for name in includes)}"
        stand_in = profile.name if profile.engine != self.profile.engine else ""
        if TAKEN_OUT in table.columns:
            source += ", less launches and unfused norms"
        if stand_in:
            source += f", standing in for {self.profile.engine}"
        form, as_measured = None, dtype == table.variant.dtype
        meant, measured = replace(table.variant, dtype=dtype), self.measured_on
        if profile.gpu != measured.name:
            if self._is_models(profile):
                measured = device_gpu(profile)
            else:
                source += f", as on {profile.gpu}"
        if table.fit is not None and table.fit.prior is not None:
            prior = table.fit.prior
            table, profile = prior_table(prior)
            assert table.fit is not None
            form = table.fit.form.slower(prior.factor)
            source += f", scaled from {prior.words}"
        if table.fit is not None and (measured != self.gpu or not as_measured):
            speed = speeds(self.gpu, measured)
            speed["compute"] = speed[table.variant.dtype]
            if not as_measured:
                speed["compute"] *= datasheet_rate(self.gpu, dtype) / datasheet_rate(
                    self.gpu, table.variant.dtype
                )
                source += f", scaled to {dtype}"
            form = (form or table.fit.form).scaled(table.kernel, speed)
            reached = efficiency().reached.get(self.gpu.name, {})
            form = at_least(form, table.kernel, table.backend, dtype, self.gpu, reached)
            source += f", scaled from {measured.name}" if measured != self.gpu else ""
        return Choice(PricedTable(table, profile.dims, form, peer, meant), source, stand_in, own, includes)

    def _is_models(self, profile: Profile) -> bool:
        """Whether a profile is of the model's own kernels."""
        return bool(self.model) and profile.header.get("model") == self.model

    def _beyond(self, table: Table, shape: Mapping[str, float]) -> str:
        """Why a table says nothing about a shape: it would leave the network that was measured."""
        if shape.get("nodes", 1.0) > 1 and table.shape["nodes"].max() == 1:
            return f"all-to-all on {self.measured_on.name} was not measured over several nodes"
        widest = max(table.shape["gpus"].max(), self.gpu.scale_up_domain) if "gpus" in table.shape else inf
        if shape.get("gpus", 1.0) > widest:
            return f"collectives on {self.measured_on.name} were not measured beyond one NVLink domain"
        return ""
