"""Routing by hand computation, for tests that are not about experts."""

from sim.model.layout import ExpertRows, Layout
from sim.step.operations import Routing


def balanced_routing(layout: Layout, slots: float) -> Routing:
    """Every expert equally popular: the mean load, and the experts that this many tokens touch on average.

    rows = tokens x dp x top_k / ep; touched = slots (1 - (1 - top_k / n_routed)^(tokens x dp)). Over the NIC go
    top_k (1 - 1/nodes) copies in low-latency mode, and one per other node touched in normal mode:
    (nodes - 1) (1 - (1 - 1/nodes)^top_k).
    """
    model, nodes = layout.model, layout.nodes
    if not model.n_routed:
        return lambda tokens: ExpertRows(0.0, 0.0, 0.0, 0.0, 0.0)
    away = 1 - 1 / nodes
    remote = (
        model.top_k * away if layout.dispatch_mode == "low_latency" else (nodes - 1) * (1 - away**model.top_k)
    )

    def rows(tokens: float) -> ExpertRows:
        total = tokens * layout.dp
        touched = slots * (1 - (1 - model.top_k / model.n_routed) ** total)
        return ExpertRows(total * model.top_k / layout.ep, slots, touched, float(model.top_k), remote)

    return rows
