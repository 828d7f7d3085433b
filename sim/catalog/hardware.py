"""GPUs, and the default efficiencies of the analytic cost model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from sim.catalog.facts import read, resolve, values

Generation = Literal["hopper", "blackwell"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU in its usual machine. Peaks are dense; bandwidths are per direction and per GPU."""

    name: str
    generation: Generation
    nearest_measured: str
    """The GPU whose measured kernels are scaled to this one; itself where kernels were measured on it."""
    memory_bytes: int
    memory_bytes_per_s: float
    bf16_flop_per_s: float
    fp8_flop_per_s: float
    fp4_flop_per_s: float | None
    """None where the tensor cores have no FP4."""
    sms: int | None
    scale_up_bytes_per_s: float
    """NVLink."""
    scale_up_domain: int
    """GPUs that NVLink joins: 8 of a node, 72 of a rack."""
    gpus_per_node: int
    scale_out_bytes_per_s: float
    """The NIC of one GPU."""
    pcie_bytes_per_s: float

    def flop_per_s(self, dtype: str) -> float | None:
        """Dense peak for bf16, fp8 or nvfp4; None where the GPU has no such arithmetic. INT4 weights meet BF16
        activations (W4A16): the arithmetic is BF16's. MXFP4 weights meet MXFP8 ones where the tensor cores have FP4, at
        the rate of FP8 (PTX ISA, tcgen05.mma kind::mxf8f6f4), and are unpacked to BF16 elsewhere (Marlin)."""
        if dtype == "mxfp4":
            dtype = "fp8" if self.fp4_flop_per_s else "bf16"
        peaks = {"bf16": self.bf16_flop_per_s, "fp8": self.fp8_flop_per_s, "nvfp4": self.fp4_flop_per_s}
        return peaks["bf16" if dtype == "int4" else dtype]


@dataclass(frozen=True, slots=True)
class LowLatencyAllToAll:
    """DeepEP's low-latency table: seconds by EP size, for `tokens_per_rank` tokens on `gpu`."""

    gpu: str
    measured_to: int
    """Widest EP that the shipped profiles measured themselves."""
    tokens_per_rank: int
    hidden: int
    top_k: int
    dispatch_s: Mapping[int, float]
    combine_s: Mapping[int, float]
    send_s: float
    """SM time of the kernels that send and receive a dispatch, at no tokens."""
    send_per_token_s: float
    """More of it for each token per rank."""
    combine_sends: float
    """The same of a combine, over that of a dispatch."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of peak that real kernels and links reach where nothing was measured."""

    memory: float
    """Share of the memory bandwidth."""
    link: float
    """Share of a link's bandwidth, scale-up and scale-out."""
    launch_floor_s: float
    """Least time of a kernel."""
    link_latency_s: float
    """Of a message between two GPUs."""
    exchange_sms: int
    """SMs that DeepEP's normal mode takes from the kernels that run beside it."""
    compute_fraction: Mapping[str, float]
    """By kernel family; `default` for the others."""
    reached: Mapping[str, Mapping[str, float]]
    """By GPU and kernel family: share of peak that was measured where tables are scaled from another GPU's."""
    low_latency_all_to_all: LowLatencyAllToAll

    def compute(self, kernel: str) -> float:
        """Share of peak FLOP/s that the kernel family reaches when compute binds."""
        return self.compute_fraction.get(kernel, self.compute_fraction["default"])


@cache
def gpu(name: str) -> Gpu:
    """The GPU of that name or alias, whether its words are joined by `_`, `-` or spaces. Raises UnknownName."""
    file = read("gpus.yaml")
    words = re.sub(r"[-\s]+", "_", name.strip())
    key = resolve("gpu", words, file["gpus"], file["aliases"])
    return Gpu(name=key, **values(file["gpus"][key]))


def described_gpu(name: str, device: Mapping[str, float]) -> Gpu:
    """A GPU that is not in the catalog, from its datasheet or from what was measured on it; keys are those of `Gpu`.

    Without an FP8 peak the BF16 one holds. A link that is not given has the memory's bandwidth, and NVLink and node
    end at the device: what leaves it is then a guess.
    Raises ValueError where the memory's size or speed or the BF16 peak is lacking.
    """
    lacking = {"memory_bytes", "memory_bytes_per_s", "bf16_flop_per_s"} - device.keys()
    if lacking:
        raise ValueError(f"`device` lacks {', '.join(sorted(lacking))}")
    memory, bf16 = device["memory_bytes_per_s"], device["bf16_flop_per_s"]
    sms = device.get("sms")
    return Gpu(
        name=name,
        generation="hopper",
        nearest_measured=name,
        memory_bytes=int(device["memory_bytes"]),
        memory_bytes_per_s=memory,
        bf16_flop_per_s=bf16,
        fp8_flop_per_s=device.get("fp8_flop_per_s", bf16),
        fp4_flop_per_s=device.get("fp4_flop_per_s"),
        sms=None if sms is None else int(sms),
        scale_up_bytes_per_s=device.get("scale_up_bytes_per_s", memory),
        scale_up_domain=int(device.get("scale_up_domain", 1)),
        gpus_per_node=int(device.get("gpus_per_node", 1)),
        scale_out_bytes_per_s=device.get("scale_out_bytes_per_s", memory),
        pcie_bytes_per_s=device.get("pcie_bytes_per_s", memory),
    )


def gpu_names() -> tuple[str, ...]:
    """The catalog's GPUs, without aliases."""
    return tuple(read("gpus.yaml")["gpus"])


def tier_names() -> tuple[str, ...]:
    """Every tier that some GPU has a price of."""
    return tuple(read("prices.yaml")["tiers"])


def price_tiers(name: str) -> Mapping[str, float]:
    """The tiers of a GPU, by its own name, with their USD per GPU-hour, for people to choose from; empty where none is
    known. What a run costs is `sim.price`'s."""
    return {
        tier: fact["value"] for tier, fact in read("prices.yaml")["usd_per_gpu_hour"].get(name, {}).items()
    }


@cache
def efficiency() -> Efficiency:
    """The default efficiencies."""
    content = values(read("efficiency.yaml"))
    table = content.pop("low_latency_all_to_all")
    for direction in ("dispatch_s", "combine_s"):
        table[direction] = MappingProxyType(table[direction])
    for fractions in ("compute_fraction", "reached"):
        content[fractions] = MappingProxyType(content[fractions])
    return Efficiency(**content, low_latency_all_to_all=LowLatencyAllToAll(**table))


@cache
def tiles() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Tiles of the tensor cores: kernel family -> back-end, format or `other` -> what its `rows` are `of`."""
    return MappingProxyType(values(read("tiles.yaml")))
