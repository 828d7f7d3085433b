"""Questions about a scenario that can run, but may not be what was meant: sentences, never errors."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from sim import catalog
from sim.catalog.slips import usual_ranges
from sim.scenario.schema import Scenario
from sim.scenario.section import Section

Given = Mapping[str, object]
"""What a scenario says itself: dotted key -> value."""


def slips(scenario: Scenario) -> Iterator[str]:
    """Numbers far from what is usual, and settings that change nothing here."""
    given = dict(given_by(scenario))
    yield from unusual(given)
    for keys, reason in _idle(scenario, given):
        if keys:
            yield f"{', '.join(keys)}: no effect here: {reason}"


def unusual(given: Given) -> Iterator[str]:
    """Questions about numbers far from what is usual."""
    for pattern, usual in usual_ranges().items():
        for key, value in given.items():
            if not (fnmatchcase(key, pattern) and isinstance(value, int | float)):
                continue
            if not usual.least <= value <= usual.most:
                end = "least" if value < usual.least else "most"
                at = f"at {end} {getattr(usual, end):g}" + (f" {usual.unit}" if usual.unit != "1" else "")
                yield f"{key}: {value:g} is unusual (mostly {at}): {usual.asks[end]}"


def _idle(scenario: Scenario, given: Given) -> Iterator[tuple[list[str], str]]:
    """(keys that are given and change nothing, why)."""

    def under(section: str, *names: str) -> list[str]:
        """Given keys of a section: these, or all."""
        return [
            key
            for key in given
            if key.startswith(f"{section}.") and (not names or key.rsplit(".", 1)[1] in names)
        ]

    model, cache, drafts = catalog.model(scenario.model), scenario.prefix_cache, scenario.speculation
    if not cache.enabled:
        kept = [key for key in under("prefix_cache") if key != "prefix_cache.enabled"]
        yield kept, "prefix_cache.enabled is false"
        if scenario.router == "prefix_aware":
            yield ["router"], "without a prefix cache, prefix_aware goes by load alone"
    if not (cache.enabled and cache.host_gb):
        yield under("price", "host_usd_per_gb_month"), "no prefix cache in host memory"
    if not (cache.enabled and cache.disk_gb):
        yield under("price", "disk_usd_per_gb_month"), "no prefix cache on disks"
    if not drafts.draft_tokens:
        names = ("task", "thinking", "acceptance", "adaptive")
        yield under("speculation", *names) + under("scheduling", "draft_host_s"), "no drafts"
    if not model.index_topk:
        yield under("indexer"), f"{model.name} has no indexer"
    if not model.n_routed:
        yield under("experts"), f"{model.name} has no routed experts"
    pools = scenario.deployment.pools()
    if pools and all(pool.experts is not None for pool in pools.values()):
        yield under("experts"), "every pool has its own `experts`"
    if "prefill" in pools:
        yield under("deployment.prefill", "max_batch_per_gpu"), "the prefill pool decodes nothing"
        yield under("deployment.decode", "chunk_tokens"), "the decode pool computes no prompt"
    if scenario.profile is None and scenario.allow_foreign_profile:
        yield ["allow_foreign_profile"], "no `profile` is given"


def given_by(section: Section, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that differs from its default, by dotted key: what is written as the default is no slip."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from given_by(value, f"{path}{name}.")
        elif value is not None and value != field.get_default(call_default_factory=True):
            yield f"{path}{name}", value
