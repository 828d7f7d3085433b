"""One decode layer as a whole: its kernels one after the other in one CUDA graph, against the sum of their points.

What the simulator adds up are points that were timed alone. Where a layer's kernels run in a row, each fills the
tail of the one before and finds what that left in the L2: this tells by how much the sum is off.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch

from calibrate.cases import Case, reduced
from calibrate.environment import Device
from calibrate.kernels.families import FAMILIES
from calibrate.timing import Call, time_calls
from calibrate.trial import SECONDS, Point, TrialFailed, Trials
from sim.catalog import Model
from sim.model.attention import Batch, attention_operations
from sim.model.layers import token_operations
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import Operation

SEQUENCES: Final = {"cuda": 128, "cpu": 4}
CONTEXT: Final = {"cuda": 4096, "cpu": 512}
EXPERTS_EP: Final = 8
"""A GPU holds this share of the routed experts, as one of eight does, and as many pairs as it brings itself."""


@dataclass(frozen=True)
class Layer:
    """A layer's time, twice."""

    together_us: float
    """Of all kernels in a row."""
    parts_us: float
    """The sum of their points."""
    kernels: int
    lacking: tuple[str, ...]
    """Kernels that no back-end runs here, or that failed: in neither figure."""

    @property
    def error(self) -> float:
        """Sum over whole, less 1."""
        return self.parts_us / self.together_us - 1


def operations(model: Model, kind: str) -> Iterator[Operation]:
    """What a decode step of one GPU runs in each of its MoE layers, but for what moves between GPUs."""
    tokens = SEQUENCES[kind]
    layout = Layout(model, gpus=1, tp=1, ep=1, gpus_per_node=8)
    block = attention_operations(layout, model.attention, Batch("decode", tokens, 1, CONTEXT[kind] - 1))[0]
    yield from block.parts
    slots = model.n_routed // EXPERTS_EP
    rows = float(tokens * model.top_k)
    experts = ExpertRows(rows=rows, slots=slots, active=min(rows, slots), copies=0.0, remote_copies=0.0)
    moe_layers = model.layers - model.dense_layers
    yield from (
        operation
        for operation in token_operations(layout, tokens, experts, tokens)
        if operation.layers in (moe_layers, model.layers) and operation.group != "communication"
    )


def time_layer(model: Model, device: Device) -> Layer:
    """Time a layer of a model, on a CPU of a reduced one. Raises TrialFailed where no kernel of it runs."""
    shown = reduced(model) if device.kind == "cpu" else model
    trials = Trials(device)
    calls: list[Call] = []
    parts_us, moved, lacking = 0.0, 0.0, []
    with torch.inference_mode():
        for operation in operations(shown, device.kind):
            point = _point(Case(replace(operation, options=_measured(operation)), shown), device)
            try:
                timing = trials.run(point)[1] if point else None
            except TrialFailed:
                timing = None
            if point is None or timing is None:
                lacking.append(operation.name)
                continue
            parts_us += timing.median_us
            moved += operation.bytes
            calls.append(_call(point, device))
        if not calls:
            raise TrialFailed(f"no kernel of a layer runs here: {', '.join(lacking)}", lost=False)

        def layer() -> None:
            for call in calls:
                call()

        together = time_calls([layer], round(moved), device, SECONDS[device.kind])
    return Layer(together.median_us, parts_us, len(calls), tuple(lacking))


def _measured(operation: Operation) -> dict[str, str]:
    """The options that a kernel is measured with: a back-end's name is none."""
    return {name: value for name, value in operation.options.items() if name != "backend"}


def _point(case: Case, device: Device) -> Point | None:
    """The case with the first back-end that runs it."""
    family = FAMILIES.get(case.operation.kernel)
    usable = (b for b in family.backends if not b.refuses(case, device)) if family else iter(())
    backend = next(usable, None)
    return Point(case, backend) if backend else None


def _call(point: Point, device: Device) -> Call:
    generator = torch.Generator(device.kind)
    generator.manual_seed(zlib.crc32(repr(point.key).encode()))
    return point.backend.build(point.case, point.family.make(point.case, device, generator))
