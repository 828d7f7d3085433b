"""Functions of other packages, under every module where their releases and engine images keep them.

Engines vendor the kernels that they call, and releases rename and drop functions. Each backend names what it calls;
where no module has all of it, the backend is refused once, with the function that is missing, instead of failing at
every point. All functions of a backend come from one module: schedules and settings of two copies do not mix.
"""

import importlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Final

DEEP_GEMM: Final = ("deep_gemm", "vllm.third_party.deep_gemm")
"""vLLM looks in this order (`vllm/utils/deep_gemm.py`, `_import_deep_gemm`); its wheels vendor the second."""
FLASH_MLA: Final = (
    "flash_mla",
    "vllm.third_party.flashmla.flash_mla_interface",
    "sgl_kernel.flash_mla",
)
"""DeepSeek's and SGLang's package share the first name; vLLM's wheels vendor the second (`vllm/v1/attention/ops/
flashmla.py`), sgl-kernel's releases up to 0.3 the third (`sgl-kernel/python/sgl_kernel/flash_mla.py`)."""
FLASH_ATTENTION: Final = ("vllm.vllm_flash_attn", "vllm.vllm_flash_attn.flash_attn_interface")


@dataclass(frozen=True)
class Needs:
    """What a backend calls, and where it may be."""

    modules: tuple[str, ...]
    """Looked through in order; the first that has everything is used."""
    symbols: tuple[str, ...] = ()
    """Functions that must all be there; `new|old` takes either name, the first that is there."""

    @property
    def missing(self) -> str | None:
        """Why the functions cannot be used, or None if they can."""
        found = _locate(self)
        return found if isinstance(found, str) else None

    def load(self) -> tuple[Any, ...]:
        """The functions, in the order of `symbols`. Raises ImportError where one is missing."""
        found = _locate(self)
        if isinstance(found, str):
            raise ImportError(found)
        return tuple(_symbol(found, names) for names in self.symbols)


def _symbol(module: ModuleType, names: str) -> Any:
    return next((getattr(module, name) for name in names.split("|") if hasattr(module, name)), None)


@cache
def _locate(needs: Needs) -> ModuleType | str:
    """The module that has everything, or the reason: what an installed one lacks rather than that another is absent."""
    absent: list[str] = []
    lacking: list[str] = []
    for name in needs.modules:
        module = _import(name)
        if isinstance(module, str):
            (absent if module.endswith("is not installed") else lacking).append(module)
            continue
        gone = [names for names in needs.symbols if _symbol(module, names) is None]
        if not gone:
            return module
        lacking.append(f"{name}{_version(name)} has no {', '.join(gone).replace('|', ' or ')}")
    return "; ".join(lacking) if lacking else absent[0]


@cache
def _import(name: str) -> ModuleType | str:
    """A module, or why it cannot be used.

    Whatever goes wrong (a wheel built for another CUDA raises all kinds of errors) only means that this machine
    has no such backend.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        return f"{error.name or name} is not installed"
    except Exception as error:
        return f"{name} does not load: {describe_error(error)}"


def _version(name: str) -> str:
    """The release that a module belongs to, after a blank; empty where it does not say."""
    root = name.partition(".")[0]
    found = importlib.metadata.packages_distributions().get(root, [])
    return f" {importlib.metadata.version(found[0])}" if found else ""


def describe_error(error: BaseException) -> str:
    """What went wrong, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


TRITON: Final = Needs(("triton",))
