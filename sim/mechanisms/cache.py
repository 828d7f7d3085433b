"""What a cached token weighs, by model and format."""

import pandas as pd

from sim import catalog
from sim.model.architecture import cache_bytes_per_token
from sim.model.attention import kinds
from sim.units import DTYPE_BYTES

FORMATS = ("bf16", "fp8")


def cache_bytes() -> pd.DataFrame:
    """Bytes of one cached token over all layers of every model of the catalog, in each format of the cache.

    Columns: model, attention (MLA, DSA or GQA), kv_cache, entry_bytes (latent and RoPE key, or keys and values),
    index_bytes (index keys of DSA), total_bytes, per_head_bytes (what keys and values of every head would take in
    the same format: the cache without latent compression or shared heads).
    """
    rows = []
    for name in catalog.model_names():
        model = catalog.model(name)
        groups = kinds(model)
        for kv_cache in FORMATS:
            total = cache_bytes_per_token(model, kv_cache)
            index = sum(layers * kind.index_bytes() for kind, layers in groups)
            heads = sum(layers * model.heads * kind.head_elements for kind, layers in groups)
            rows.append(
                {
                    "model": name,
                    "attention": " + ".join(kind.label for kind, _ in groups),
                    "kv_cache": kv_cache,
                    "entry_bytes": total - index,
                    "index_bytes": index,
                    "total_bytes": total,
                    "per_head_bytes": round(heads * DTYPE_BYTES[kv_cache]),
                }
            )
    return pd.DataFrame(rows)
