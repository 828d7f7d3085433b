"""How many draft tokens of multi-token prediction are accepted."""

from functools import cache
from typing import Any

from sim.catalog.facts import read, values
from sim.catalog.models import model


def _lengths(name: str) -> dict[int, float]:
    table: dict[Any, Any] = dict(read("acceptance.yaml").get(name, {}))
    base = table.pop("inherits", None)
    return {**_lengths(base), **values(table)} if base else values(table)


@cache
def acceptance(name: str, draft_tokens: int) -> tuple[float, ...]:
    """Chance that draft i is accepted given that all before it were, for i = 1 .. `draft_tokens`.

    From published accept lengths A_k (k drafts, bonus token included): s_i = A_i - A_(i-1), with A_0 = 1, is the
    chance that at least i drafts are accepted, and s_i / s_(i-1) the one returned. Drafts beyond the longest
    published length are never accepted; a model without figures accepts none. Raises UnknownName.
    """
    lengths = {0: 1.0, **_lengths(model(name).name)}
    chances: list[float] = []
    reached = 1.0
    for i in range(1, draft_tokens + 1):
        survive = lengths[i] - lengths[i - 1] if i in lengths else 0.0
        chances.append(survive / reached if reached else 0.0)
        reached = survive
    return tuple(chances)
