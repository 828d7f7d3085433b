"""What environment variables say of DSA's indexer: the scenario's `indexer` section."""

import re
from collections.abc import Mapping
from typing import Final

from sim.launch.derived import Derived
from sim.launch.words import fail
from sim.scenario.schema import Indexer
from sim.units import GB_BYTES

MIB_BYTES: Final = 2**20
DENSE: Final[Mapping[str, str]] = {
    "sglang": "SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD",
    "trtllm": "TRTLLM_MLA_SHORT_SEQ_MHA_THRESHOLD",
}
"""Tokens up to which prompts run masked MHA (SGLang 0.5.23, srt/environ.py)."""
LOGITS: Final[Mapping[str, str]] = {"vllm": "VLLM_SPARSE_INDEXER_MAX_LOGITS_MB"}
"""Room of the logits, MiB."""


def read(found: Derived) -> None:
    """The section's keys, as variables of the command set them."""
    if (tokens := _whole(found, "dense_threshold")) is not None:
        found.say(
            ("indexer", "dense_threshold"), tokens, found.command.said("dense_threshold"), "dense_threshold"
        )
    if room := _whole(found, "logits_mib"):
        said = f"{found.command.said('logits_mib')} MiB"
        found.say(("indexer", "logits_gb"), round(room * MIB_BYTES / GB_BYTES, 3), said, "logits_mib")


def _whole(found: Derived, name: str) -> int | None:
    given = found.command.given(name)
    if given is None:
        return None
    if not re.fullmatch(r"\d{1,9}", given.value):
        raise fail(given.place, f"{given.said.split('=')[0]} takes a whole number, got '{given.value}'")
    return int(given.value)


def variables(engine: str, indexer: Indexer) -> dict[str, str]:
    """The variables that set it."""
    said: dict[str, str] = {}
    if indexer.dense_threshold is not None and engine in DENSE:
        said[DENSE[engine]] = str(indexer.dense_threshold)
    if indexer.logits_gb is not None and engine in LOGITS:
        said[LOGITS[engine]] = str(round(indexer.logits_gb * GB_BYTES / MIB_BYTES))
    return said
