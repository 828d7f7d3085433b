"""An operation -> seconds, and where the number came from.

Every latency carries its source. The roofline here knows only datasheets and default efficiencies; measured
profiles (`sim.cost.profile`) stand in front of it and fall back on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from sim.catalog import Efficiency, Gpu
from sim.kernels import plays
from sim.model.operations import HOST_STEP, REST_OF_STEP, Operation

PricedBy = Literal["measured", "fitted", "scaled", "extrapolated", "analytic"]
PRICED_BY: Final[tuple[PricedBy, ...]] = ("measured", "fitted", "scaled", "extrapolated", "analytic")
MATTERS: Final = 0.2
"""Share of a price from which its less certain part gives it its name."""
Bound = Literal["compute", "memory", "link", "launch"]
PricedWith = Literal["own", "shipped", "fitted", "analytic"]
PRICED_WITH: Final[tuple[PricedWith, ...]] = ("own", "shipped", "fitted", "analytic")
"""What a price rests on: one's own or shipped measurements, inside what they cover; a form fitted to either, beyond it;
datasheets."""
CARRIED_ON: Final[dict[PricedBy, PricedWith]] = {
    "scaled": "fitted",
    "extrapolated": "fitted",
    "analytic": "analytic",
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of ONE layer of an operation, with their provenance."""

    seconds: float
    priced_by: PricedBy
    source: str
    """Which table, fit or datasheet, in words that a reader can follow up."""
    bound: Bound
    shares: tuple[tuple[PricedBy, float], ...] = ()
    """Seconds by what priced them where that is not one thing; they add up to `seconds`."""
    own: bool = False
    """Whether the measurements are those of a calibrated profile."""

    @classmethod
    def of_parts(
        cls, parts: tuple[tuple[PricedBy, float], ...], source: str, bound: Bound, own: bool
    ) -> "Latency":
        """The sum of seconds that were priced in different ways, named after the least certain that matters."""
        if len(parts) == 1:
            kind, seconds = parts[0]
            return cls(seconds, kind, source, bound, (), own)
        total_s = sum(seconds for _, seconds in parts)
        weighty = [kind for kind, seconds in parts if seconds > MATTERS * total_s]
        named = max(weighty or [kind for kind, _ in parts], key=PRICED_BY.index)
        return cls(total_s, named, source, bound, parts, own)

    def by_source(self) -> tuple[tuple[PricedBy, float], ...]:
        """Seconds by what priced them."""
        return self.shares or ((self.priced_by, self.seconds),)

    def with_source(self) -> dict[PricedWith, float]:
        """Seconds by whose measurements they rest on; those that there are."""
        found: dict[PricedWith, float] = {}
        for kind, seconds in self.by_source():
            whose = CARRIED_ON.get(kind, "own" if self.own else "shipped")
            found[whose] = found.get(whose, 0.0) + seconds
        return found

    def times(self, factor: float, why: str) -> "Latency":
        """`factor` times as long; the provenance stays, and `source` says why."""
        shares = tuple((source, seconds * factor) for source, seconds in self.shares)
        source = f"{self.source}; x {factor:.3g} {why}"
        return replace(self, seconds=self.seconds * factor, source=source, shares=shares)


class CostModel(Protocol):
    """Whatever can price operations."""

    def knows(self, operation: Operation) -> bool:
        """Whether this model prices the operation itself; a block that it does not know is priced by its parts."""
        ...

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer of the operation on one GPU."""
        ...


@dataclass(frozen=True, slots=True)
class PricedOperation:
    """An operation with its latency; a block's parts are priced only where the block itself was not."""

    operation: Operation
    latency: Latency

    @property
    def total_s(self) -> float:
        """Seconds over all layers of the step."""
        return self.latency.seconds * self.operation.layers


def price_all(operations: Iterable[Operation], cost: CostModel) -> list[PricedOperation]:
    """Price every operation; a block that the model has not measured is replaced by its parts."""
    priced: list[PricedOperation] = []
    for operation in operations:
        if not cost.knows(operation) and operation.parts:
            priced += price_all(operation.parts, cost)
        else:
            priced.append(PricedOperation(operation, cost.price(operation)))
    return priced


def shares_with(priced: Iterable[PricedOperation]) -> dict[PricedWith, float]:
    """Shares of the operations' seconds by what they rest on, as in PRICED_WITH; they add up to 1."""
    seconds: dict[PricedWith, float] = dict.fromkeys(PRICED_WITH, 0.0)
    for one in priced:
        for whose, of_layer in one.latency.with_source().items():
            seconds[whose] += of_layer * one.operation.layers
    total_s = sum(seconds.values())
    return {whose: each / total_s if total_s else 0.0 for whose, each in seconds.items()}


@dataclass(frozen=True)
class InSituCost:
    """Prices of a running engine: a collective takes `communication_factor` times what it takes back to back, an
    operation that says so itself its own factor.

    The factor stands for the skew between ranks and the small kernels around a collective, which benchmarks of
    the collective alone do not see; `catalog/engines` has it with its source. It does not hold for dispatch and
    combine: what lengthens them in a running engine is the load of the most loaded rank, which the operation has.
    """

    cost: CostModel
    communication_factor: float

    def knows(self, operation: Operation) -> bool:
        """As the model behind it."""
        return self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the provenance stays that of the back-to-back price."""
        latency, factor = self.cost.price(operation), operation.in_situ
        if plays(operation.kernel, "collective"):
            factor *= self.communication_factor
        return latency if factor == 1 else latency.times(factor, "in situ")


@dataclass(frozen=True)
class AnchoredCost:
    """Prices adjusted to one's own measurement of a deployment: a step of t seconds takes `factor` x t + `constant_s`.

    Here and nowhere else an anchor enters the price of a step: every operation takes `factor` times as long, and the
    engine's own time once in a step (or the rest of a step that is priced whole) `constant_s` more (never less than
    none).
    """

    cost: CostModel
    factor: float
    constant_s: float
    name: str
    """Of the anchor, for the source of each price."""

    def knows(self, operation: Operation) -> bool:
        """As the model behind it."""
        return self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the provenance stays that of the price without the anchor."""
        latency = self.cost.price(operation).times(self.factor, f"of {self.name}")
        if operation.name not in (HOST_STEP, REST_OF_STEP):
            return latency
        seconds = max(0.0, latency.seconds + self.constant_s)
        return replace(latency, seconds=seconds, source=f"{latency.source} {self.constant_s:+.3g} s")


@dataclass(frozen=True)
class ConcentratedScores:
    """Prices of an indexer whose best scores lie together, as those of recent tokens do, and not at random.

    The radix selection of top-k is then faster. Blocks were measured on random scores: their price is corrected by
    what the bare kernel gains.
    """

    cost: CostModel

    def knows(self, operation: Operation) -> bool:
        """As the model behind it."""
        return self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; the provenance is that of the price with random scores."""
        if operation.kernel == "index_topk":
            return self.cost.price(_concentrated(operation))
        latency = self.cost.price(operation)
        select = next((part for part in operation.parts if part.kernel == "index_topk"), None)
        if select is None:
            return latency
        gained_s = self.cost.price(select).seconds - self.cost.price(_concentrated(select)).seconds
        left = 1 - max(0.0, gained_s) / latency.seconds
        return latency.times(left, "top-k on concentrated scores")


def _concentrated(select: Operation) -> Operation:
    return replace(select, options={**select.options, "distribution": "concentrated"})


@dataclass(frozen=True)
class AnalyticCost:
    """Roofline: the launch floor plus the slower of arithmetic and traffic.

    t = floor + max(FLOP / (peak x e_compute), bytes / (bandwidth x e_memory)) for kernels, and
    t = latency + bytes / (link x e_link) for communication (alpha-beta model).
    Datasheets in `catalog/gpus.yaml`, efficiencies with their sources in `catalog/efficiency.yaml`.
    """

    gpu: Gpu
    efficiency: Efficiency

    def knows(self, operation: Operation) -> bool:
        """Blocks are priced by their parts."""
        return not operation.parts

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; `analytic` whatever it is."""
        if operation.group == "communication":
            return self._communicate(operation)
        if operation.kernel == "host":
            return Latency(operation.shape["seconds"], "analytic", "engine overhead of the catalog", "launch")
        compute_s = 0.0
        if operation.flop:
            peak = self.gpu.flop_per_s(operation.dtype) or self.gpu.fp8_flop_per_s
            compute_s = operation.flop / (peak * self.efficiency.compute(operation.kernel))
        memory_s = operation.bytes / (self.gpu.memory_bytes_per_s * self.efficiency.memory)
        floor_s = self.efficiency.launch_floor_s
        bound: Bound = "compute" if compute_s > memory_s else "memory"
        if floor_s > max(compute_s, memory_s):
            bound = "launch"
        source = f"roofline of {self.gpu.name}, default efficiency"
        return Latency(floor_s + max(compute_s, memory_s), "analytic", source, bound)

    def _communicate(self, operation: Operation) -> Latency:
        """Latency + the slower of NVLink and NIC; the operation says what crosses the NIC. Collectives that cross it
        are the business of `sim.cost.network`."""
        remote_bytes = operation.shape.get("remote_bytes", 0.0)
        links = {
            "NIC": remote_bytes / self.gpu.scale_out_bytes_per_s,
            "NVLink": (operation.bytes - remote_bytes) / self.gpu.scale_up_bytes_per_s,
        }
        slower = max(links, key=lambda name: links[name])
        seconds = self.efficiency.link_latency_s + links[slower] / self.efficiency.link
        return Latency(seconds, "analytic", f"{slower} of {self.gpu.name}, default efficiency", "link")
