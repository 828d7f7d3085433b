"""Names of checkpoints <-> models of the catalog, with the format of their weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from sim import catalog
from sim.catalog import Model, UnknownName, nearest_names

FORMATS: Final = {
    "nvfp4": "nvfp4", "fp4": "nvfp4", "fp8": "fp8", "bf16": "bf16",
    "int4": "int4", "mxfp4": "mxfp4",
    "awq": None, "gptq": None, "int8": None, "w4a8": None, "w4afp8": None, "w8a8": None,
}  # fmt: skip
"""What a part of a checkpoint's name says of its weights; None: a format that Tokenworks has not."""
_DROPPED: Final = (
    "instruct",
    "chat",
    "base",
    "hf",
    "original",
    "v2",
    "dynamic",
    "block",
    "quantized",
    "dspark",
    *FORMATS,
)
"""Endings of a checkpoint's name without which its model may be known."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the name of a checkpoint says."""

    model: str
    """A name or an alias of the catalog, or the path of a config.json."""
    weights: str
    """A format of a scenario: said in the name, else as the model was published."""
    odd: str | None = None
    """A format that the name says and that Tokenworks has not."""
    drafts_blocks: bool = False
    """Whether DSpark's drafter is part of it."""


def checkpoint(name: str, folder: Path | None) -> Checkpoint:
    """The model behind a repository, a folder or a path; `folder`: where those of the machine start, None: nowhere.

    Raises UnknownName with the nearest models, and ConfigError for one that is known and not modelled."""
    base = name.rstrip("/").rsplit("/", 1)[-1]
    base = re.sub(r"^models--.*?--", "", base)
    parts = base.lower().split("-")
    said = [FORMATS[part] or part for part in parts if part in FORMATS]
    model = _model(base, parts)
    of_repository = {
        repo: (row, form) for row, forms in _repositories().items() for form, repo in forms.items()
    }
    if model is None and name in of_repository:
        model = of_repository[name][0]
    if model is None and folder and (config := folder / name / "config.json").is_file():
        model = str(config)
    if model is None:
        known = [*catalog.model_names(), *catalog.aliases("model")]
        raise UnknownName("model", base, nearest_names("-".join(_shortened(parts)), known))
    published = of_repository[name][1] if name in of_repository else catalog.model(model).weights
    odd = next((one for one in said if one in FORMATS and FORMATS[one] is None), None)
    drafts_blocks = "dspark" in parts or model in _table()["with_dspark"].values()
    return Checkpoint(model, published if not said or odd else said[0], odd, drafts_blocks)


def _model(base: str, parts: list[str]) -> str | None:
    """The catalog's name for it, endings dropped one by one."""
    left = list(parts)
    while left:
        name = "-".join(left)
        try:
            catalog.model(name)
        except (UnknownName, catalog.ConfigError) as unusable:
            if isinstance(unusable, catalog.ConfigError) and not name.endswith(".json"):
                raise  # known, and not modelled
            if left[-1] not in _DROPPED:
                return None
            left.pop()
        else:
            return name
    return None


def _shortened(parts: list[str]) -> list[str]:
    left = list(parts)
    while len(left) > 1 and left[-1] in _DROPPED:
        left.pop()
    return left


@cache
def _table() -> Mapping[str, Any]:
    text = resources.files("sim.launch").joinpath("models.yaml").read_text(encoding="utf-8")
    table: Mapping[str, Any] = yaml.safe_load(text)
    return table


def _repositories() -> Mapping[str, Mapping[str, str]]:
    found: Mapping[str, Mapping[str, str]] = _table()["repositories"]
    return found


def repository(model: str, weights: str) -> str | None:
    """The checkpoint of that model in that format; None where none is known."""
    return _row(model).get(weights)


def placeholder(model: str, weights: str) -> str:
    """What stands where no checkpoint is known: a path that is plainly none, and that is read as the same model."""
    base = next(iter(_row(model).values()), model.removesuffix("/config.json")).rstrip("/").rsplit("/", 1)[-1]
    plain = [part for part in base.split("-") if part.lower() not in FORMATS]
    return f"/PATH/TO/{'-'.join((*plain, weights.upper()))}"


def with_drafter(model: str) -> str:
    """The release of a model whose checkpoints hold DSpark's drafter: the model itself where none is named."""
    found: str = _table()["with_dspark"].get(model.lower(), model)
    return found


def beside_nvfp4(model: Model) -> tuple[str, str]:
    """Formats of the attention and of dense layers in NVIDIA's NVFP4 checkpoints: V4's are as published (a "hybrid
    FP8+NVFP4 checkpoint" to SGLang 0.5.23, model_overrides/deepseek_v4.py); the others' attention is BF16."""
    return ("fp8", "fp8") if model.compressed else ("bf16", "nvfp4")


def _row(model: str) -> Mapping[str, str]:
    return _repositories().get(model.lower()) or _repositories().get(catalog.model(model).name, {})
