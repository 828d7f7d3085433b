"""What families say of themselves fits together, and every operation of a model is one of theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog import model
from sim.kernels import FAMILIES, plays
from sim.kernels.family import DEFAULTS, Dims, Variant
from sim.model.attention import Batch, attention_operations
from sim.model.layout import Layout

DIMS = Dims.of(model("deepseek-v3.2"))
COMPRESSED = Dims.of(model("deepseek-v4-pro"))


@given(
    name=st.sampled_from(["deepseek-v3", "deepseek-v3.2"]),
    tp=st.sampled_from([1, 8]),
    weights=st.sampled_from(["bf16", "fp8"]),
    kv_cache=st.sampled_from(["bf16", "fp8"]),
    phase=st.sampled_from(["prefill", "decode"]),
    batch=st.integers(1, 64),
    new=st.integers(1, 4000),
    cached=st.integers(0, 10_000),
)
def test_a_block_and_its_parts_count_alike(
    name: str, tp: int, weights: str, kv_cache: str, phase: str, batch: int, new: int, cached: int
) -> None:
    """A family's work at the shape of an operation is what the operation says, for a block and for all of its parts."""
    layout = Layout(
        model(name), gpus=tp, tp=tp, ep=1, gpus_per_node=8, dense_prefill_max_kv=2048, kv_cache=kv_cache,
        weights=weights, attention_weights=weights,
    )  # fmt: skip
    queries = new if phase == "prefill" else new % 4 + 1
    block = attention_operations(layout, layout.model.attention, Batch(phase, batch, queries, cached))[0]  # type: ignore[arg-type]
    for one in (block, *block.parts):
        variant = Variant(one.dtype, dict(one.options))
        work = FAMILIES[one.kernel].traffic({**DEFAULTS, **one.shape}, variant, DIMS)
        assert work == pytest.approx((one.flop, one.bytes))
        assert set(one.widths) <= set(FAMILIES[one.kernel].widths)


def test_a_family_tells_what_its_stages_are() -> None:
    axes = {axis for family in FAMILIES.values() for axis in (*family.axes, *family.free)}
    shape = dict.fromkeys(axes | {"queries", "rows", "active"}, 2.0)
    for name, family in FAMILIES.items():
        assert family.name == name
        dims = COMPRESSED if family.name.startswith(("csa", "hca", "swa")) else DIMS
        work = family.work(shape, Variant("bf16", {}), dims)
        assert len(family.tiled_as(len(work))) == len(family.carried_by(len(work))) == len(work), name
        assert set(family.tiled_as(len(work))) <= {*FAMILIES, ""}
        assert all(hasattr(DIMS, width) for width in family.widths)
        assert family.arithmetic == any(flop for flop, _ in work), name
        placed = family.reference(shape)
        assert set(family.axes) <= set(placed), name


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_needs_is_what_its_work_and_its_grid_look_up(name: str) -> None:
    family, fp8 = FAMILIES[name], Variant("fp8", {})
    shape = dict.fromkeys((*family.needs, *DEFAULTS), 8.0)
    placed = family.reference(shape)
    assert set(family.axes) <= placed.keys()
    family.work(placed, fp8, COMPRESSED)
    for axis in family.counted:
        with pytest.raises(KeyError, match=axis):
            family.work(family.reference({a: v for a, v in shape.items() if a != axis}), fp8, COMPRESSED)


def test_parts_in_a_step() -> None:
    """Which exchanges bring tokens to their experts, and where the part of a block begins that depends on its keys."""
    assert [k for k in FAMILIES if plays(k, "outward")] == ["dispatch", "all_gather"]
    assert [k for k in FAMILIES if plays(k, "collective")] == ["all_reduce", "all_gather", "reduce_scatter"]
    assert [k for k in FAMILIES if plays(k, "indexer")] == [
        "index_logits", "index_topk", "csa_logits", "csa_topk",
    ]  # fmt: skip
    assert not plays("host", "core")
    assert {k for k in FAMILIES if plays(k, "core")} == {
        "mla_prefill", "mla_decode", "sparse_mla_prefill", "sparse_mla_decode", "gqa_prefill", "gqa_decode",
        "swa_prefill", "swa_decode", "hca_prefill", "hca_decode", "csa_prefill", "csa_decode",
    }  # fmt: skip


def test_an_expert_s_rows_follow_its_load() -> None:
    """Experts are placed by rows per expert: at twice the load there are twice the rows."""
    moe = FAMILIES["moe"]
    placed = moe.reference({"rows": 64.0, "experts": 8.0})
    assert placed["load"] == 8
    assert moe.moved(placed, {"load": 16.0})["rows"] == 128
