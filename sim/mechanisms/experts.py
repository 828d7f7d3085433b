"""How uneven experts make a step wait, what replicas mend, and how far a token's copies travel."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sim import catalog
from sim.experts.load import expert_load
from sim.scenario.schema import Experts


def expert_imbalance(
    model: str, ep: int, gpus_per_node: int, experts: Experts, tokens: Sequence[float]
) -> pd.DataFrame:
    """Load of the hottest rank over the mean by tokens per rank, without balancing and as `experts` says.

    Columns: balancing, tokens_per_rank, imbalance, limit (at many tokens). Raises ValueError where the slots do not
    divide by `ep`.
    """
    kinds = {"none": experts.model_copy(update={"redundant": 0})}
    if experts.redundant:
        name = f"{experts.redundant} replicas"
        fresh = experts.model_copy(update={"staleness_rho": 1.0})
        kinds[name if experts.staleness_rho == 1 else f"{name}, up to date"] = fresh
        if experts.staleness_rho < 1:
            kinds[f"{name}, from older load"] = experts
    tables = []
    for name, kind in kinds.items():
        load = expert_load(catalog.model(model), ep=ep, gpus_per_node=gpus_per_node, experts=kind)
        tables.append(
            pd.DataFrame(
                {
                    "balancing": name,
                    "tokens_per_rank": np.asarray(tokens, dtype=float),
                    "imbalance": load.imbalance(tokens),
                    "limit": load.limit,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def nodes_touched(
    model: str, gpus_per_node: int, ranks: Sequence[int], node_limit: int | None
) -> pd.DataFrame:
    """Distinct nodes and GPUs that a token's copies reach, by ranks of the EP group, popularity even.

    Columns: limit (words), ep, nodes, gpus, rdma_copies (over the network in normal mode). EP sizes that do not
    divide the experts are left out.
    """
    shape = catalog.model(model)
    kinds = {"no limit": Experts(popularity_sigma=0)}
    if node_limit is not None and node_limit <= shape.n_group:
        kinds[f"{node_limit} of {shape.n_group} groups"] = Experts(popularity_sigma=0, node_limit=node_limit)
    rows = []
    for name, experts in kinds.items():
        for ep in ranks:
            if shape.n_routed % ep:
                continue
            load = expert_load(shape, ep=ep, gpus_per_node=gpus_per_node, experts=experts)
            rows.append(
                {
                    "limit": name,
                    "ep": ep,
                    "nodes": load.nodes_touched,
                    "gpus": load.gpus_touched,
                    "rdma_copies": load.copies("normal").rdma,
                }
            )
    return pd.DataFrame(rows)
