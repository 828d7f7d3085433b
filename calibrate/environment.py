"""What a measurement was taken on: GPU, driver, clocks, power limit, versions; and its state while it ran.

Records of different environments do not belong into one profile, so everything here that can change a time is
part of the environment; what varies from point to point (clock, temperature, throttling) is a point's conditions.
"""

# ruff: noqa: PLC0415 (torch is optional: it is imported where it is used)

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

PACKAGES: Final = (
    "triton",
    "sgl-flash-mla",
    "flash-mla",
    "sgl-deep-gemm",
    "deep-gemm",
    "flashinfer-python",
    "vllm",
    "sgl-kernel",
    "sglang-kernel",
    "deep-ep",
)
"""Distributions whose version decides which kernel runs."""

THROTTLE_REASONS: Final = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of `clocks_throttle_reasons.active` that slow a kernel down (NVML, nvmlClocksThrottleReasons)."""


@dataclass(frozen=True, slots=True)
class Device:
    """The processor that the kernels run on."""

    kind: Literal["cpu", "cuda"]
    name: str
    count: int
    """Processors of that kind in this machine."""
    memory_bytes: int
    l2_bytes: int
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability; (0, 0) on a CPU."""
    sms: int = 0


def find_device(kind: str | None = None) -> Device:
    """The first GPU, or the CPU where there is none or `kind` is `cpu`. Needs torch.

    Raises ValueError where `kind` is `cuda` and there is no GPU, or `kind` is something else.
    """
    import torch

    if kind not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, not {kind!r}")
    if kind != "cpu" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(
            "cuda", properties.name, torch.cuda.device_count(), properties.total_memory,
            properties.L2_cache_size, (properties.major, properties.minor), properties.multi_processor_count,
        )  # fmt: skip
    if kind == "cuda":
        raise ValueError("torch finds no CUDA GPU on this machine")
    return Device("cpu", _cpu_name(), os.cpu_count() or 1, _host_memory_bytes(), _last_level_cache_bytes())


def describe(device: Device) -> dict[str, Any]:
    """The environment that every record carries: equal for all records of one file."""
    import torch

    environment: dict[str, Any] = {
        "device": device.kind,
        "name": device.name,
        "count": device.count,
        "memory_bytes": device.memory_bytes,
        "l2_bytes": device.l2_bytes,
        "compute_capability": f"{device.capability[0]}.{device.capability[1]}",
        "sms": device.sms,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": 1 if device.kind == "cpu" else None,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }
    return environment | (_gpu_settings() if device.kind == "cuda" else {})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """Model name of the first processor; the architecture where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _host_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _last_level_cache_bytes() -> int:
    """Size of the largest CPU cache; 0 where the system does not tell."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) * 1024)
    return max(sizes)


_SETTINGS: Final = {
    "driver": "driver_version",
    "power_limit_w": "power.limit",
    "max_sm_clock_mhz": "clocks.max.sm",
    "max_memory_clock_mhz": "clocks.max.memory",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
}
_CONDITIONS: Final = {
    "sm_clock_mhz": "clocks.sm",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
}
_THROTTLE: Final = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What nvidia-smi calls the reasons of a low clock: its name since driver 535, and the one before."""


def _query(fields: dict[str, str], *extra: str) -> list[str]:
    """Command that asks about torch's first GPU: CUDA_VISIBLE_DEVICES numbers GPUs anew, nvidia-smi does not."""
    import torch

    uuid = str(torch.cuda.get_device_properties(0).uuid)
    return [
        "nvidia-smi",
        "-i",
        f"GPU-{uuid.removeprefix('GPU-')}",
        f"--query-gpu={','.join(fields.values())}",
        "--format=csv,noheader,nounits",
        *extra,
    ]


def _gpu_settings() -> dict[str, str]:
    """Driver, power limit, top clocks as nvidia-smi prints them; empty where it is missing or fails."""
    return _ask(_SETTINGS)


def _ask(fields: dict[str, str]) -> dict[str, str]:
    """The fields as nvidia-smi prints them; empty where it is missing, fails, or does not know one of them."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        answer = subprocess.run(_query(fields), capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (value.strip() for value in answer.split(",")), strict=False))


def _conditions() -> dict[str, str]:
    """What to sample: throttling under the name that this driver knows, or not at all."""
    named = ({**_CONDITIONS, "throttle": name} for name in _THROTTLE)
    return next((fields for fields in named if _ask(fields)), _CONDITIONS)


class Watch:
    """Samples clock, power, temperature and throttling while kernels run; does nothing without nvidia-smi.

    One nvidia-smi process for the whole run, read by one thread, so that no point pays for it.
    """

    PERIOD_MS: Final = 100
    KEPT: Final = 6000

    def __init__(self, device: Device) -> None:
        self._samples: deque[tuple[float, dict[str, str]]] = deque(maxlen=self.KEPT)
        self._fields: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._active = device.kind == "cuda" and shutil.which("nvidia-smi") is not None

    def __enter__(self) -> Self:
        if self._active:
            self._fields = _conditions()
            command = _query(self._fields, "-lms", str(self.PERIOD_MS))
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            values = (value.strip() for value in line.split(","))
            self._samples.append((time.monotonic(), dict(zip(self._fields, values, strict=False))))

    def conditions(self, since_s: float) -> dict[str, Any]:
        """Lowest clock, highest power and temperature, and throttle reasons seen since a monotonic time.

        Empty where nothing was sampled.
        """
        return summarize([values for at_s, values in list(self._samples) if at_s >= since_s])


def summarize(samples: list[dict[str, str]]) -> dict[str, Any]:
    """Extremes of nvidia-smi samples; a value that the GPU does not report is left out."""

    def numbers(key: str) -> list[float]:
        found = []
        for sample in samples:
            with contextlib.suppress(KeyError, ValueError):
                found.append(float(sample[key]))
        return found

    conditions: dict[str, Any] = {}
    if clocks := numbers("sm_clock_mhz"):
        conditions["sm_clock_mhz"] = min(clocks)
    if power := numbers("power_w"):
        conditions["power_w"] = max(power)
    if heat := numbers("temperature_c"):
        conditions["temperature_c"] = max(heat)
    bits = 0
    for sample in samples:
        with contextlib.suppress(KeyError, ValueError):
            bits |= int(sample["throttle"], 16)
    if reasons := [reason for bit, reason in THROTTLE_REASONS.items() if bits & bit]:
        conditions["throttled"] = reasons
    return conditions
