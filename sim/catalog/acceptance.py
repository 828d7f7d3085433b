"""How many draft tokens of multi-token prediction are accepted."""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from operator import mul
from typing import Any

from sim.catalog.facts import UnknownName, read, values
from sim.catalog.models import model

GENERAL = "general"
MTP = "mtp"
"""How drafts are made where a row, or who asks, says nothing."""


@cache
def _rows(name: str) -> tuple[dict[str, Any], ...]:
    """A model's rows: its own name's as the user wrote it, else its model's."""
    table = read("acceptance.yaml")
    entry = table.get(name.lower()) or table.get(model(name).name) or ()
    return _rows(entry["inherits"]) if isinstance(entry, dict) else tuple(entry)


def acceptance_tasks(name: str, method: str | None = None) -> tuple[str, ...]:
    """What accept lengths of a model's drafts (None: those of MTP) are published for, such as `general` or `coding,
    thinking`; maybe nothing."""
    modes = {None: "", True: ", thinking", False: ", not thinking"}
    return tuple(row["task"] + modes[row.get("thinking")] for row in _drafted(name, method))


def acceptance_rows(name: str, method: str | None = None) -> list[tuple[str, bool | None]]:
    """Task and thinking mode of each of them."""
    return [(row["task"], row.get("thinking")) for row in _drafted(name, method)]


def _drafted(name: str, method: str | None) -> list[dict[str, Any]]:
    return [row for row in _rows(name) if row.get("method", MTP) == (method or MTP)]


def longest_block(name: str) -> int:
    """Drafts of the longest block (DSpark) whose accept length is published and no shorter than a shorter block's; 0
    where none is."""
    return max((len(values(row["chances"])) for row in _drafted(name, "dspark")), default=0)


def acceptance(
    name: str,
    draft_tokens: int,
    task: str | None = None,
    thinking: bool | None = None,
    method: str | None = None,
) -> tuple[float, ...]:
    """Chance that draft i is accepted given that all before it were, for i = 1 .. `draft_tokens`.

    `task` and `thinking` select one of the model's rows; left out, whatever they are (`general` where both are).
    `method`: how drafts are made, `mtp` unless said.
    Past the longest published draft the last chance holds. Raises UnknownName where not exactly one row is meant.
    """
    if task is None and thinking is None:
        task = GENERAL
    meant = [
        row
        for row in _drafted(name, method)
        if task in (None, row["task"]) and thinking in (None, row.get("thinking"))
    ]
    if len(meant) != 1:
        modes = {None: [], True: ["thinking"], False: ["not thinking"]}
        asked = ", ".join([task or "any task", *modes[thinking]])
        known = acceptance_tasks(name, method) or ("speculation.acceptance",)
        raise UnknownName(f"accept length of {name} for", asked, known)
    chances = values(meant[0]["chances"])
    return tuple(chances[min(i, len(chances) - 1)] for i in range(draft_tokens))


def accept_length(chances: Sequence[float]) -> float:
    """Mean tokens per verify step, the bonus token included: 1 + sum_i prod_{j <= i} chances[j]."""
    return sum(accumulate(chances, mul), 1.0)
