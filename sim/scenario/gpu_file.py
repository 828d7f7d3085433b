"""A GPU that the catalog does not hold, from a YAML file of its datasheet: `gpu: my-gpu.yaml` (docs/gpus.md)."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from sim import catalog
from sim.catalog import Gpu
from sim.files import changed_ns
from sim.scenario.errors import LocatedProblem, ScenarioError
from sim.scenario.form import check
from sim.scenario.reader import read, read_file
from sim.scenario.section import PositiveInt, Section, unit
from sim.scenario.tree import find

# Wide enough for any accelerator, and narrow enough to catch GB for bytes and TFLOP/s for FLOP/s.
Bytes = Annotated[float, Field(ge=1e9, le=1e14, strict=True, json_schema_extra=unit("bytes"))]
MemorySpeed = Annotated[float, Field(ge=1e10, le=1e15, strict=True, json_schema_extra=unit("bytes/s"))]
LinkSpeed = Annotated[float, Field(ge=1e8, le=1e14, strict=True, json_schema_extra=unit("bytes/s"))]
Flops = Annotated[float, Field(ge=1e12, le=1e18, strict=True, json_schema_extra=unit("FLOP/s"))]


class GpuFile(Section):
    """One GPU in its machine, as its datasheet has it: dense peaks, bandwidths per GPU and direction."""

    name: str | None = Field(default=None, min_length=1, description="default: the file's name")
    memory_bytes: Bytes = Field(description="GPU memory, bytes: 141 GB is 141e9")
    memory_bytes_per_s: MemorySpeed = Field(description="bandwidth of that memory, bytes per second")
    bf16_flop_per_s: Flops = Field(description="dense BF16 peak, FLOP per second (half of a sparse figure)")
    fp8_flop_per_s: Flops | None = Field(default=None, description="dense FP8 peak; default: as BF16")
    fp4_flop_per_s: Flops | None = Field(default=None, description="dense FP4 peak; default: has no FP4")
    sms: PositiveInt | None = Field(default=None, description="streaming multiprocessors; default: unknown")
    gpus_per_node: PositiveInt = Field(description="GPUs of one server")
    scale_up_domain: PositiveInt = Field(description="GPUs that NVLink or its like joins; 1 without")
    scale_up_bytes_per_s: LinkSpeed = Field(
        description="NVLink or its like, bytes per second, one direction (half of a figure for both)"
    )
    scale_out_bytes_per_s: LinkSpeed = Field(
        description="network card of one GPU, bytes per second, one direction"
    )
    pcie_bytes_per_s: LinkSpeed = Field(description="link to the host, bytes per second, one direction")

    @field_validator("name")
    @classmethod
    def _not_the_catalogs(cls, name: str | None) -> str | None:
        if name is not None and _in_catalog(name):
            raise ValueError(f"{name} is a GPU of the catalog; expected another name")
        return name

    @model_validator(mode="after")
    def _whole_nodes(self) -> "GpuFile":
        small, large = sorted((self.gpus_per_node, self.scale_up_domain))
        if large % small:
            raise ValueError(
                f"gpus_per_node {self.gpus_per_node} and scale_up_domain {self.scale_up_domain}: one divides the other"
            )
        return self


def is_gpu_file(name: str) -> bool:
    """Whether a scenario's `gpu` names a file, by its suffix."""
    return Path(name).suffix in (".yaml", ".yml")


def read_gpu(name: str) -> Gpu:
    """The GPU that a file describes; read again where it has changed.

    Raises ScenarioError with every problem found: file, line, column, key and what was expected.
    """
    return _read(name, changed_ns(Path(name)))


@lru_cache(maxsize=32)
def _read(name: str, stamp: int) -> Gpu:
    """`stamp` tells one state of the file from the next."""
    tree = read(read_file(Path(name), name), name)
    if not isinstance(tree.value, dict):
        raise ScenarioError(
            [LocatedProblem((), "expected a section with keys such as memory_bytes", tree.place)]
        )
    sheet = check(tree, GpuFile)
    own = sheet.name or Path(name).stem
    if _in_catalog(own):
        message = f"{own} is a GPU of the catalog; give the file another name, or a key `name`"
        raise ScenarioError([LocatedProblem(("name",), message, find(tree, ("name",))[1].shown)])
    return catalog.described_gpu(own, sheet.model_dump(exclude={"name"}, exclude_none=True))


def _in_catalog(name: str) -> bool:
    try:
        return bool(catalog.gpu(name))
    except catalog.UnknownName:
        return False
