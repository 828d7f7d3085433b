"""Models by name: the catalog's own, or those of a Hugging Face config.json; and the layouts of their caches."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sim.catalog.facts import read, resolve, values
from sim.catalog.hugging_face import ConfigError, read_config
from sim.catalog.shapes import LayerGroup, Model
from sim.files import changed_ns

CONFIG: Final = "config.json"
"""The file of a checkpoint that describes its architecture."""


def model(name: str) -> Model:
    """The model of that name or alias, or of that config.json (or the folder that it lies in).

    A file is read again where it has changed. Raises UnknownName, and ConfigError where the file cannot be used or the
    model is known but not modelled.
    """
    file = _file(name)
    return _known(name) if file is None else _described(file, changed_ns(file))


def _file(name: str) -> Path | None:
    """The config.json that a name means; None where it is the name of a model."""
    file = Path(name)
    if file.suffix == ".json":
        return file
    with suppress(OSError, ValueError):  # a name that no file can have
        if "/" in name and (file / CONFIG).is_file():
            return file / CONFIG
    return None


@cache
def _known(name: str) -> Model:
    file = read("models.yaml")
    if why := values(file["not_modelled"]).get(release(name).lower()):
        raise ConfigError(f"{name} is not modelled: {why}")
    key = resolve("model", release(name), file["models"], file["aliases"])
    shapes = values(_facts(key))
    parts, attention, layers = (shapes.pop(name, None) for name in ("bf16_parts", "attention", "layers"))
    module, notes = shapes.pop("module", None), shapes.pop("notes", ())
    groups = (
        (LayerGroup(attention, layers),)
        if isinstance(attention, str)
        else tuple(_group(**group) for group in attention)
    )
    own = _group(**module) if module else None
    return Model(
        name=key, attention=groups, bf16_parts=tuple(parts), module=own, notes=tuple(notes), **shapes
    )


def _group(kind: str, layers: int = 0, **sizes: int) -> LayerGroup:
    """One entry of a list of groups."""
    return LayerGroup(kind, layers, tuple(sorted(sizes.items())))


@lru_cache(maxsize=64)
def _described(file: Path, stamp: int) -> Model:
    """`stamp` tells one state of the file from the next."""
    return read_config(file)


def release(name: str) -> str:
    """A model's name as the catalog writes it: lower case, without its own organisation on the Hugging Face Hub.

    A file's name stays as it is.
    """
    organisation, slash, rest = name.lower().partition("/")
    return (
        rest if slash and organisation in read("models.yaml")["organisations"] and "/" not in rest else name
    )


def model_names() -> tuple[str, ...]:
    """The catalog's models, without aliases."""
    return tuple(read("models.yaml")["models"])


def _facts(name: str) -> dict[str, Any]:
    entry = dict(read("models.yaml")["models"][name])
    base = entry.pop("inherits", None)
    return {**_facts(base), **entry} if base else entry


@cache
def kv_layouts() -> Mapping[str, int]:
    """Bytes per entry and layer of each cache layout, by name: mla_bf16, dsa_index_key and so on."""
    return MappingProxyType(values(read("models.yaml")["kv_layouts"]))
