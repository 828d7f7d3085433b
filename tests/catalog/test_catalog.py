"""Every fact has a unit and a known source; names resolve; unknown names are answered with the nearest."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from sim import catalog
from sim.catalog.facts import is_fact, read

FILES = (
    "gpus.yaml",
    "models.yaml",
    "engines/common.yaml",
    *(f"engines/{name}.yaml" for name in catalog.engine_names()),
    "efficiency.yaml",
    "tiles.yaml",
    "prices.yaml",
    "acceptance.yaml",
    "cache_tiers.yaml",
    "expected_error.yaml",
    "traffic.yaml",
    "operations.yaml",
    "network.yaml",
)
NOT_FACTS = ("aliases", "organisations", "inherits", "task", "thinking", "method")


def leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Facts, and whatever stands where a fact should be."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if is_fact(node) or not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        if key not in NOT_FACTS:
            yield from leaves(child, f"{path}.{key}")


@pytest.mark.parametrize("file", FILES)
def test_every_fact_has_unit_and_source(file: str) -> None:
    sources = read("sources.yaml")
    found = list(leaves(read(file), file))
    assert found
    for path, fact in found:
        assert isinstance(fact, dict), f"{path} is bare: {fact!r}"
        assert set(fact) <= {"value", "unit", "source", "note", "as_of"}, path
        assert fact.get("unit"), path
        cited = fact["source"] if isinstance(fact.get("source"), list) else [fact.get("source")]
        assert cited and set(cited) <= set(sources), f"{path}: unknown source {fact.get('source')!r}"
        if set(cited) & {"assumption", "derived"}:
            assert fact.get("note"), f"{path}: an assumption or a derived value says why"


def test_no_source_is_listed_in_vain() -> None:
    cited = set()
    for file in FILES:
        for _, fact in leaves(read(file), file):
            cited.update(fact["source"] if isinstance(fact["source"], list) else [fact["source"]])
    assert cited == set(read("sources.yaml"))


def test_memory_is_in_bytes() -> None:
    assert catalog.gpu("h200").memory_bytes == 151_397_597_184  # 141 GiB, not 141e9
    assert catalog.gpu("h100").memory_bytes == 80 * 2**30
    assert catalog.gpu("gb200").memory_bytes == 189_471 * 2**20


def test_every_gpu_and_its_scale_up_world() -> None:
    assert {g: catalog.gpu(g).scale_up_domain for g in catalog.gpu_names()} == {
        "h100_sxm": 8, "h800_sxm": 8, "h20_96": 8, "h20_141gb": 8, "h200_sxm": 8, "b200_sxm": 8, "gb200_nvl72": 72,
        "b300_sxm": 8, "gb300_nvl72": 72,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["h800", "H20", "h100"])
def test_unmeasured_gpus_scale_from_the_h100(name: str) -> None:
    assert catalog.gpu(name).nearest_measured == "h100_sxm"


def test_peaks_by_format() -> None:
    h100, b200 = catalog.gpu("h100"), catalog.gpu("b200")
    assert h100.flop_per_s("nvfp4") is None
    assert b200.flop_per_s("nvfp4") == 9e15
    assert h100.flop_per_s("fp8") == 1.979e15


def test_aliases_share_one_object() -> None:
    for alias in (
        "deepseek-r1",
        "deepseek-r1-0528",
        "deepseek-v3-0324",
        "deepseek-v3.1",
        "DeepSeek-V3.1-Terminus",
    ):
        assert catalog.model(alias) is catalog.model("deepseek-v3") or catalog.model(alias) == catalog.model(
            "deepseek-v3"
        )
    assert catalog.model("deepseek-v3.2-exp").name == "deepseek-v3.2"
    assert catalog.gpu("gb200").name == "gb200_nvl72"


def test_v32_inherits_v3_and_adds_the_indexer() -> None:
    v3, v32 = catalog.model("deepseek-v3"), catalog.model("deepseek-v3.2")
    assert (v32.layers, v32.hidden, v32.n_routed) == (v3.layers, v3.hidden, v3.n_routed)
    assert (v32.index_heads, v32.index_head_dim, v32.index_topk) == (64, 128, 2048)
    assert [(group.attention, group.layers) for group in v3.attention] == [("mla", 61)]
    assert [(group.attention, group.layers) for group in v32.attention] == [("dsa", 61)]


@pytest.mark.parametrize(
    ("look_up", "name", "nearest"),
    [
        (catalog.gpu, "h2000", "h200"),
        (catalog.model, "deepseek-v32", "deepseek-v3.2"),
        (catalog.engine, "vlm", "vllm"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(look_up: Any, name: str, nearest: str) -> None:
    with pytest.raises(catalog.UnknownName) as error:
        look_up(name)
    assert nearest in error.value.nearest
    assert name in str(error.value) and nearest in str(error.value)
    # SimPy raises an error again from its arguments.
    assert str(type(error.value)(*error.value.args)) == str(error.value)


def test_nothing_near_lists_every_name() -> None:
    with pytest.raises(catalog.UnknownName) as error:
        catalog.gpu("tpu")
    assert set(catalog.gpu_names()) <= set(error.value.nearest)


def test_catalog_objects_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        catalog.gpu("h100").memory_bytes = 1  # type: ignore[misc]


def test_chunk_by_memory_class() -> None:
    sglang = catalog.engine("sglang")
    h200, b200 = (catalog.gpu(name).memory_bytes for name in ("h200", "b200"))
    assert (sglang.chunk_for(h200, 1), sglang.chunk_for(b200, 1)) == (8192, 16384)
    assert (sglang.chunk_for(h200, 8), sglang.chunk_for(b200, 32)) == (1024, 512)
    vllm = catalog.engine("vllm")
    assert [vllm.chunk_for(gib * 2**30, 8) for gib in (48, 80, 141, 180)] == [2048, 8192, 8192, 16384]


def test_low_latency_table_reproduces_the_printed_bandwidth() -> None:
    """DeepEP prints 98 GB/s for EP8 dispatch: 128 tokens x 8 experts x 7,392 B / 77 us."""
    table = catalog.efficiency().low_latency_all_to_all
    sent = table.tokens_per_rank * table.top_k * (table.hidden + table.hidden / 128 * 4)
    assert sent / table.dispatch_s[8] == pytest.approx(98e9, rel=0.01)


def test_efficiencies_are_shares() -> None:
    e = catalog.efficiency()
    assert all(0 < share <= 1 for share in (e.memory, e.link, *e.compute_fraction.values()))
    assert e.compute("gemm") > e.compute("sparse_mla_decode")
    assert e.compute("never measured") == e.compute_fraction["default"]
