"""What a cached token weighs, by model and format."""

import pandas as pd

from sim import catalog
from sim.model.architecture import cache_bytes_per_token, cache_entry_bytes, index_entry_bytes
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
        kind = "GQA" if model.attention == "gqa" else "DSA" if model.sparse else "MLA"
        width = 2 * model.head_dim if kind == "GQA" else model.qk_nope + model.qk_rope + model.v_head_dim
        rows += [
            {
                "model": name,
                "attention": kind,
                "kv_cache": kv_cache,
                "entry_bytes": model.layers * cache_entry_bytes(model, kv_cache),
                "index_bytes": model.layers * index_entry_bytes(model),
                "total_bytes": cache_bytes_per_token(model, kv_cache),
                "per_head_bytes": round(model.layers * model.heads * width * DTYPE_BYTES[kv_cache]),
            }
            for kv_cache in FORMATS
        ]
    return pd.DataFrame(rows)
