"""SGLang's default memory fraction by release, worked out by hand from `server_args.py` and `memory_hook.py`."""

from typing import Any

import pytest

from sim import catalog
from sim.catalog import Work

GIB = 1024
H200, H100, B200 = (catalog.gpu(name).memory_bytes for name in ("h200", "h100", "b200"))


def mib(release: str, **given: Any) -> float:
    """MiB that SGLang keeps free on an aggregated node of eight H200, unless said otherwise."""
    usual = {
        "role": "serve", "memory_bytes": H200, "gpus": 8, "ranks": 1, "all_to_all": False, "chunk_tokens": 8192,
        "sequences": 128,
    }  # fmt: skip
    return catalog.engine("sglang", release).reserve.bytes(Work(**{**usual, **given})) / 2**20


@pytest.mark.parametrize(
    ("release", "given", "expected"),
    [
        # 0.4.6: the smaller of 88% + 48 GiB x 12% and all but 18 GiB; on 80 GB 81% at TP8.
        ("0.4.6.post5", {}, 18 * GIB),
        ("0.4.6.post5", {"memory_bytes": H100}, pytest.approx(0.19 * 80 * GIB, rel=1e-4)),
        # 0.4.9 to 0.5.2: 12 + tp / 2 GiB, 9.5 on 80 GB, 32 from 160 GB; 4 more with attention DP, 2 with drafts.
        ("0.5.2", {}, (12 + 4) * GIB),
        ("0.5.2", {"memory_bytes": H100, "gpus": 16}, (9.5 + 8) * GIB),
        ("0.5.2", {"memory_bytes": B200, "ranks": 8, "drafts": 1}, (32 + 4 + 2) * GIB),
        # 0.5.3: 512 + 1.5 x chunk + 1024 x tp / 8 + 2 x 512 captured; ranks add (3 + 1.5) x 512 each.
        ("0.5.9", {}, 512 + 12_288 + 1024 + 1024),
        ("0.5.9", {"ranks": 8}, 512 + 12_288 + 1024 + 1024 + 4.5 * 512 * 8),
        ("0.5.9", {"ranks": 8, "drafts": 3}, 512 + 12_288 + 1024 + 1024 + 4.5 * 512 * 8 + 2048),
        ("0.5.9", {"gpus": 2, "chunk_tokens": 2048}, 10_240),  # the floor: 512 + 3072 + 256 + 512 are less
        # 0.5.10: prompts are captured too, where the model and the GPU let it; drafts 4 GiB, from 0.5.14 none.
        ("0.5.12", {"prefill_graphs": True, "drafts": 1}, 14_848 + 1536 + 4096),
        ("0.5.12", {"prefill_graphs": True, "ranks": 2}, 14_848 + 4.5 * 512 * 2),
        ("0.5.14", {"drafts": 1}, 14_848),
        # 0.5.16: a decode pool keeps room for its sequences x (1 + drafts), one of prompts none for graphs.
        ("0.5.23", {"role": "decode", "sequences": 4096, "drafts": 1}, 512 + 1.5 * 8192 + 1024 + 1024),
        ("0.5.23", {"role": "decode", "sequences": 64}, 10_240),
        ("0.5.23", {"role": "prefill"}, 512 + 12_288 + 1024),
        # all-to-all: 2 GiB beyond; captured is what runs, as recipes set it.
        ("0.5.23", {"role": "decode", "ranks": 8, "all_to_all": True, "sequences": 64}, 10_240 + 2048),
    ],
)
def test_reserve_of_each_release(release: str, given: dict[str, Any], expected: float) -> None:
    assert mib(release, **given) == expected


def test_attention_dp_keeps_far_more_than_tp() -> None:
    """0.5.x on H200, eight ranks: 1 - 33,280 / 144,384 = 0.770 of the memory, against 0.897 for TP8."""
    fractions = [1 - mib("0.5.9", ranks=ranks) * 2**20 / H200 for ranks in (1, 8)]
    assert [round(f, 3) for f in fractions] == [0.897, 0.77]


def test_a_release_older_than_all_takes_the_oldest_rule() -> None:
    assert catalog.engine("sglang", "0.3.0").reserve == catalog.engine("sglang", "0.4.6").reserve
