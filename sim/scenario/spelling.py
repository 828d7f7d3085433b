"""What people write -> what the rest reads: names of vendors and of the Hugging Face Hub, formats left to the model."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from sim import catalog
from sim.scenario.section import Section

CHECKPOINT: Final = "checkpoint"
"""The format of weights that stands for the published checkpoint's."""

ReleaseName = Annotated[
    str, Field(pattern=r"^\d+(\.\d+)+([.a-z]\w*)*$", max_length=40, json_schema_extra={"release": True})
]
"""A release of an engine, such as "0.5.6.post1"."""


def engine_name(value: object) -> object:
    """The catalog's name of an engine, whatever its case or alias; anything else is left to the type's own check."""
    if not isinstance(value, str):
        return value
    name = catalog.spelling("engine", value.lower())
    return catalog.aliases("engine").get(name, name)


def gpu_name(value: object) -> object:
    """The catalog's name of a GPU that is written with other `-`, `_` and spaces."""
    return catalog.spelling("gpu", value) if isinstance(value, str) else value


def tier_name(value: object) -> object:
    """The catalog's name of a price tier, whatever its case and its `-`, `_` and spaces."""
    name = catalog.spelling("tier", value) if isinstance(value, str) else value
    return name.lower() if isinstance(name, str) and name.lower() in catalog.tier_names() else name


def release_name(value: object) -> object:
    """A model's name without its organisation on the Hub, as the catalog writes `-`, `_` and spaces."""
    return catalog.spelling("model", catalog.release(value)) if isinstance(value, str) else value


def checkpoint_formats(scenario: object) -> object:
    """A scenario's data with the formats of its model's published checkpoint, where it does not say others."""
    if not isinstance(scenario, dict) or not isinstance(name := scenario.get("model"), str):
        return scenario
    precision = scenario.get("precision")
    if isinstance(precision, Section):
        precision = precision.model_dump()
    if not isinstance(precision, dict | None):
        return scenario
    return {**scenario, "precision": with_formats(name, precision or {})}


def with_formats(name: str, precision: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a `precision`, in which formats left to the checkpoint are those of the model of that name.

    A model that cannot be read is left to the check of names.
    """
    if precision.get("weights") not in (None, CHECKPOINT):
        return dict(precision)
    try:
        model = catalog.model(name)
    except (catalog.UnknownName, catalog.ConfigError):
        return dict(precision)
    published = {
        "weights": model.weights,
        "attention": model.attention_weights,
        "dense": model.dense_weights,
    }
    # Whatever else stands there is kept, for the form to judge.
    given = {k: v for k, v in precision.items() if v != CHECKPOINT and (v is not None or k not in published)}
    return {**{k: v for k, v in published.items() if v is not None}, **given}
