"""What the launch scripts of a published measurement say beyond the columns of its row."""

from collections.abc import Mapping
from datetime import date
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).with_name("recipes.yaml")


@cache
def recipes() -> Mapping[str, Any]:
    """`recipes.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def settings(columns: Mapping[str, Any], ran: date | None) -> dict[str, Any]:
    """Settings for a row: those of every rule whose conditions hold, later ones first in right.

    columns: model, hardware, framework, precision, spec, dp_attention, ep, gpus, isl, osl, conc of a row.
    ran: its date. Models with launch scripts of their own have rules of their own.
    """
    found: dict[str, Any] = {}
    for rule in recipes()["rules_of_models"].get(columns.get("model"), recipes()["rules"]):
        if _holds(rule["when"], columns, ran):
            found |= rule["then"]
    if isinstance(chunk := found.get("chunk_tokens"), dict):
        found["chunk_tokens"] = _tokens(chunk, columns)
    return found


def _holds(when: Mapping[str, Any], columns: Mapping[str, Any], ran: date | None) -> bool:
    for name, wanted in when.items():
        if name == "from":
            held = ran is not None and ran >= wanted
        elif name == "before":
            held = ran is not None and ran < wanted
        elif name.endswith("_from"):
            held = columns[name.removesuffix("_from")] >= wanted
        else:
            held = columns[name] in (wanted if isinstance(wanted, list) else [wanted])
        if not held:
            return False
    return True


def _tokens(rule: Mapping[str, int], columns: Mapping[str, Any]) -> int:
    """isl, conc and a constant added up, rounded up to a multiple, at least `least`."""
    total = rule["isl"] * columns["isl"] + rule["conc"] * columns["conc"] + rule["plus"]
    return max(int(ceil(total / rule["multiple"]) * rule["multiple"]), rule.get("least", 0))
