"""Why serving costs what it costs: each mechanism on its own, as a table over what drives it."""

from sim.mechanisms.attention import attention_parts, cost_by_position, published_cost
from sim.mechanisms.cache import cache_bytes
from sim.mechanisms.experts import expert_imbalance, nodes_touched
from sim.mechanisms.speculation import speculation_gain

__all__ = [
    "attention_parts",
    "cache_bytes",
    "cost_by_position",
    "expert_imbalance",
    "nodes_touched",
    "published_cost",
    "speculation_gain",
]
