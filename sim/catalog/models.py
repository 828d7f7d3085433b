"""Models by name: the catalog's own, or those of a Hugging Face config.json; and the layouts of their caches."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sim.catalog.facts import read, resolve, values
from sim.catalog.hugging_face import read_config
from sim.catalog.shapes import Model


@cache
def model(name: str) -> Model:
    """The model of that name or alias, or of that config.json.

    Raises UnknownName, and ConfigError where the file cannot be used.
    """
    if Path(name).suffix == ".json":
        return read_config(Path(name))
    file = read("models.yaml")
    key = resolve("model", name, file["models"], file["aliases"])
    shapes = values(_facts(key))
    return Model(name=key, **{**shapes, "bf16_parts": tuple(shapes["bf16_parts"])})


def model_names() -> tuple[str, ...]:
    """The catalog's models, without aliases."""
    return tuple(read("models.yaml")["models"])


def _facts(name: str) -> dict[str, Any]:
    entry = dict(read("models.yaml")["models"][name])
    base = entry.pop("inherits", None)
    return {**_facts(base), **entry} if base else entry


@cache
def kv_layouts() -> Mapping[str, int]:
    """Bytes per token and layer of each cache layout: mla_bf16, mla_fp8, dsa_fp8, dsa_index_key."""
    return MappingProxyType(values(read("models.yaml")["kv_layouts"]))
