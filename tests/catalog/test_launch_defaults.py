"""Defaults of launch commands by release: those of the nearest one that is described, or of the newest."""

import pytest

from sim import catalog


@pytest.mark.parametrize(
    ("release", "taken"),
    [
        (None, "0.33.0"), ("0.33.0", "0.33.0"), ("0.40", "0.33.0"), ("v0.33.1rc2", "0.33.0"),
        ("0.32.9", "0.32.9"), ("0.10.0", "0.10.0"), ("0.6.4", "0.9.0"), ("nightly", "0.33.0"),
    ],
)  # fmt: skip
def test_the_nearest_release_that_is_known(release: str | None, taken: str) -> None:
    assert catalog.launch_defaults("vllm", release).release == taken


def test_a_release_inherits_what_the_one_before_it_says() -> None:
    newest, old = catalog.launch_defaults("vllm"), catalog.launch_defaults("vllm", "0.23.9")
    assert (newest.get("memory_fraction"), old.get("memory_fraction")) == (0.92, 0.9)
    assert newest.get("drafts") == old.get("drafts") == 1
    assert newest.get("nothing") is None


def test_defaults_by_memory_take_the_largest_bound_that_is_reached() -> None:
    """max_num_seqs of vLLM online: 1,024 from 70 GiB, 256 below."""
    seats = catalog.launch_defaults("vllm")
    assert seats.by_memory("seats", catalog.gpu("h100")) == 1024
    sglang = catalog.launch_defaults("sglang")
    assert [sglang.by_memory("graph_batch_below_tp4", catalog.gpu(name)) for name in ("h200", "b200")] == [
        256,
        512,
    ]
    assert sglang.chunk_tokens(catalog.gpu("h200")) == 8192
