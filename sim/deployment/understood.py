"""What a scenario's model was understood as: the block that `check` prints."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sim import catalog
from sim.catalog import Model
from sim.deployment.engine import engine_of
from sim.model import architecture
from sim.model.attention import kinds
from sim.scenario.schema import Scenario
from sim.units import GB_BYTES, MILLION


@dataclass(frozen=True, slots=True)
class Understood:
    """A model in the words of its config.json, with what follows from them."""

    name: str
    architecture: str
    """What config.json calls it; `catalog` for the catalog's own."""
    attention: str
    layers: int
    dense_layers: int
    routed_experts: int
    experts_per_token: int
    shared_experts: int
    mtp_modules: int
    checkpoint: str
    """Format of the published weights."""
    weights: str
    """Format that the scenario runs: the routed experts', or everything's."""
    attention_weights: str
    dense_weights: str
    parameters: int
    active_parameters: int
    """Per token, without the embedding."""
    weights_gb: float
    """One copy of the main model, scales included."""
    kv_cache: str
    cache_bytes_per_token: float
    """Over all layers on one GPU that holds every head, index keys included."""
    notes: tuple[str, ...]
    """What was taken for granted, left out, or is a conversion, in sentences."""

    def json(self) -> dict[str, Any]:
        """The `model` object of `check --json`."""
        return {**asdict(self), "notes": list(self.notes)}


def understood(scenario: Scenario) -> Understood:
    """What the scenario's model is, in the formats that the scenario runs. Raises what `catalog.model` raises."""
    model, precision = catalog.model(scenario.model), scenario.precision
    weights = architecture.weight_bytes_per_gpu(
        model,
        gpus=1,
        weights=precision.weights,
        attention=precision.attention_format,
        dense=precision.dense_format,
    )
    groups = kinds(model)
    words = [kind.words() + f" in {layers} layers" * (len(groups) > 1) for kind, layers in groups]
    asked = precision.weights
    fixed = architecture.cache_bytes_per_request(model, precision.kv_cache)
    beside = [_beside_tokens(scenario, model, fixed)] if fixed else []
    converted = [f"weights converted from {model.weights} to {asked}"] if asked != model.weights else []
    return Understood(
        name=Path(scenario.model).name,
        architecture=model.architecture or "catalog",
        attention="; ".join(words),
        layers=model.layers,
        dense_layers=model.dense_layers,
        routed_experts=model.n_routed,
        experts_per_token=model.top_k,
        shared_experts=model.n_shared,
        mtp_modules=model.nextn,
        checkpoint=model.weights,
        weights=asked,
        attention_weights=precision.attention_format,
        dense_weights=precision.dense_format,
        parameters=architecture.total_parameters(model),
        active_parameters=architecture.active_parameters(model),
        weights_gb=sum(weights.values()) / GB_BYTES,
        kv_cache=precision.kv_cache,
        cache_bytes_per_token=architecture.cache_bytes_per_token(model, precision.kv_cache),
        notes=(*model.notes, *beside, *converted, *_drafter(scenario, model)),
    )


def _drafter(scenario: Scenario, model: Model) -> Iterator[str]:
    """What drafts in place of the MTP modules."""
    if scenario.speculation.draft_tokens and scenario.speculation.method == "dspark":
        layers = f"DSpark drafts with {model.dspark_modules} layers of its own, not with the MTP module"
        yield f"{layers}; checkpoints of the releases before it do not have them"


def _beside_tokens(scenario: Scenario, model: Model, fixed: float) -> str:
    """How the engine holds what a request has beside its tokens, `fixed` bytes: see `held.cache_taken`."""
    engine, states = engine_of(scenario), architecture.state_bytes_per_request(model)
    if states and engine.window_pool_share:
        return f"{engine.name} holds windows and states in pools of their own, sized with the tokens it has room for"
    if states and engine.state_tokens:
        return f"a request takes as much of {engine.name}'s cache as {engine.state_tokens} more tokens"
    return f"a request takes {fixed / MILLION:.1f} MB of cache beside its tokens"
