"""Names of checkpoints <-> models of the catalog, with the format of their weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import yaml

from sim import catalog
from sim.catalog import UnknownName, nearest_names

FORMATS: Final = {
    "nvfp4": "nvfp4", "fp4": "nvfp4", "fp8": "fp8", "bf16": "bf16",
    "awq": None, "gptq": None, "int4": None, "int8": None, "w4a8": None, "w4afp8": None, "w8a8": None, "mxfp4": None,
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
    *FORMATS,
)
"""Endings of a checkpoint's name without which its model may be known."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the name of a checkpoint says."""

    model: str
    """A name or an alias of the catalog, or the path of a config.json."""
    weights: str
    """bf16, fp8 or nvfp4: said in the name, else as the model was published."""
    odd: str | None = None
    """A format that the name says and that Tokenworks has not."""


def checkpoint(name: str, folder: Path | None) -> Checkpoint:
    """The model behind a repository, a folder or a path; `folder`: where those of the machine start, None: nowhere.

    Raises UnknownName with the nearest models, and ConfigError for one that is known and not modelled."""
    base = name.rstrip("/").rsplit("/", 1)[-1]
    base = re.sub(r"^models--.*?--", "", base)
    parts = base.lower().split("-")
    said = [FORMATS[part] or part for part in parts if part in FORMATS]
    model = _model(base, parts)
    if model is None and folder and (config := folder / name / "config.json").is_file():
        model = str(config)
    if model is None:
        known = [*catalog.model_names(), *catalog.aliases("model")]
        raise UnknownName("model", base, nearest_names("-".join(_shortened(parts)), known))
    of_repository = {repo: form for row in _repositories().values() for form, repo in row.items()}
    published = of_repository.get(name, catalog.model(model).weights)
    odd = next((one for one in said if one not in ("nvfp4", "fp8", "bf16")), None)
    return Checkpoint(model, published if not said or odd else said[0], odd)


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
def _repositories() -> Mapping[str, Mapping[str, str]]:
    text = resources.files("sim.launch").joinpath("models.yaml").read_text(encoding="utf-8")
    table: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)
    return table


def repository(model: str, weights: str) -> str | None:
    """The checkpoint of that model in that format; None where none is known."""
    table = _repositories()
    name = model.lower()
    row = table.get(name) or table.get(catalog.model(model).name, {})
    return row.get(weights)


def published(model: str) -> str | None:
    """A checkpoint of that model, whatever its format; None where none is known."""
    row = _repositories().get(model.lower()) or _repositories().get(catalog.model(model).name, {})
    return next(iter(row.values()), None)
