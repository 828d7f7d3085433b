"""What multi-token prediction gains: published and simulated side by side (`draft_gains.yaml`)."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

from sim.mechanisms import speculation_gain
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.validation.case import Case, described


@cache
def entries() -> tuple[dict[str, Any], ...]:
    """The published gains: id, name, published (gain by drafts), batch, context, scenario, source and note."""
    text = resources.files("sim.validation").joinpath("draft_gains.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text)["cases"])


def entry_scenario(entry: dict[str, Any]) -> Scenario:
    """The scenario of an entry."""
    return parse(yaml.safe_dump(entry["scenario"]), f"{entry['name']}.yaml").scenario


def ids() -> list[str]:
    """One per entry and number of drafts, such as `MTP5-3`."""
    return [f"{entry['id']}-{drafts}" for entry in entries() for drafts in entry["published"]]


def cases(wanted: Sequence[str]) -> Iterator[Case]:
    """Tokens per second with drafts over without, of the decode step; the batch is per attention-DP rank."""
    for entry in entries():
        drafts = [k for k in entry["published"] if f"{entry['id']}-{k}" in wanted]
        if not drafts:
            continue
        scenario = entry_scenario(entry)
        for gain in speculation_gain(scenario, drafts, [entry["batch"]], entry["context"]).itertuples():
            yield Case(
                id=f"{entry['id']}-{gain.draft_tokens}",
                metric="speedup",
                published=entry["published"][gain.draft_tokens],
                simulated=gain.gain,
                layout=entry["name"],
                point=f"{gain.draft_tokens} drafts, decode of {entry['batch']} at {entry['context']}",
                source=entry["source"],
                **described(scenario, "decode"),
            )
