"""Kinds of attention, a file each, and the attention of a model whose layers are groups of them.

A new kind is a class of `Attention` in a file of its own, listed in KINDS, and named by the models of the catalog.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from sim.catalog import LayerGroup, Model, UnknownName, nearest_names
from sim.model.attention.csa import Csa
from sim.model.attention.dsa import Dsa
from sim.model.attention.gqa import Gqa
from sim.model.attention.hca import Hca
from sim.model.attention.kind import Attention, AttentionForm, Batch, Matrix
from sim.model.attention.mla import Mla
from sim.model.attention.swa import Swa
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation

__all__ = [
    "KINDS",
    "Attention",
    "AttentionForm",
    "Batch",
    "Forms",
    "Matrix",
    "attention_operations",
    "chooses_keys",
    "context_kinks",
    "kind_of",
    "kinds",
    "only_latents",
    "prefill_forms",
]

KINDS: Final[dict[str, type[Attention]]] = {kind.name: kind for kind in (Mla, Dsa, Gqa, Swa, Hca, Csa)}

Forms = tuple[str, ...]
"""The form of each group of layers, by name."""


def kind_of(model: Model, group: LayerGroup) -> Attention:
    """The kind of one group of a model's layers. Raises UnknownName."""
    name = group.attention
    if name not in KINDS:
        raise UnknownName("kind of attention", name, nearest_names(name, KINDS))
    return KINDS[name](model, group)


def kinds(model: Model, mtp: bool = False) -> list[tuple[Attention, int]]:
    """What the model's layers attend with, and how many do; with `mtp` the MTP modules' layers too."""
    return [(kind_of(model, group), group.layers) for group in model.layer_groups(mtp)]


def chooses_keys(model: Model) -> bool:
    """Whether a layer attends to chosen keys: engines have rules of their own for such models."""
    return any(kind.sparse for kind, _ in kinds(model))


def only_latents(model: Model) -> bool:
    """Whether all caches hold latents, which TP does not shard."""
    return all(kind.latent for kind, _ in kinds(model))


def attention_operations(
    layout: Layout, groups: Sequence[LayerGroup], batch: Batch, forms: Forms | None = None
) -> list[Operation]:
    """Attention of the layers of `groups` in a step; `forms`: of each group, None: those that the context asks for."""
    found: list[Operation] = []
    for index, group in enumerate(groups):
        kind = kind_of(layout.model, group)
        form = forms[index] if forms else kind.form(layout, batch.phase, batch.context)
        operations = kind.operations(layout, batch, group.layers, form)
        found += operations if len(groups) == 1 else [_told_apart(o, kind.label) for o in operations]
    return found


def _told_apart(operation: Operation, label: str) -> Operation:
    parts = tuple(_told_apart(part, label) for part in operation.parts)
    return replace(operation, name=f"{operation.name}, {label}", parts=parts)


def prefill_forms(layout: Layout) -> list[tuple[float, Forms]]:
    """(KV tokens of the longest prompt, forms of the groups up to there), rising, the last one without end."""
    of_groups = [kind.forms(layout, "prefill") for kind, _ in kinds(layout.model, layout.mtp)]
    ends = sorted({form.up_to for forms in of_groups for form in forms})

    def at(end: float) -> Iterator[str]:
        for forms in of_groups:
            yield next(form.name for form in forms if end <= form.up_to)

    return [(end, tuple(at(end))) for end in ends]


def context_kinks(layout: Layout, phase: Phase) -> list[float]:
    """Mean contexts at which the seconds of a phase bend or jump, of all kinds."""
    return [kink for kind, _ in kinds(layout.model) for kink in kind.kinks(layout, phase)]
