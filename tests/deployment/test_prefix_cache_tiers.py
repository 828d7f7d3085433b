"""Tiers of the prefix cache: capacities and fetch times, reckoned from the catalog's figures by hand."""

from typing import Any

import pytest

from sim.deployment.plan import deploy, resolve
from sim.deployment.prefix_tiers import PrefixCachePlan
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario

# V3.2 in FP8: (656 + 132) bytes x 61 layers. H200: PCIe 64e9 x 0.85, NIC 50e9 x 0.8, NVLink 450e9 x 0.8 bytes/s;
# disk 42.9e9 bytes/s for the eight GPUs of a node.
TOKEN = 48_068
PCIE, NIC, NVLINK, DISK = 54.4e9, 40e9, 360e9, 5.3625e9


def scenario(cache: dict[str, Any], **changes: Any) -> Scenario:
    pools = {"prefill": {"workers": 8, "gpus": 8, "ep": 8}, "decode": {"workers": 4, "gpus": 16, "ep": 16}}
    form = {"model": "deepseek-v3.2", "gpu": "h200_sxm", "deployment": pools,
            "workload": {"trace": "mooncake-conversation"}, "prefix_cache": {"enabled": True, **cache}}  # fmt: skip
    return Scenario.model_validate(form | changes)


def plan(cache: dict[str, Any], **changes: Any) -> PrefixCachePlan:
    found = deploy(scenario(cache, **changes)).prefix_cache
    assert found is not None
    return found


def fetch(found: PrefixCachePlan) -> list[float]:
    return [tier.fetch_s_per_token for tier in found.tiers]


def test_one_cache_for_the_cluster_is_reached_over_the_nic() -> None:
    """64 ranks: a block in HBM is on another one with a chance of 63 / 64."""
    found = plan({"scope": "cluster", "hbm_tokens": 3_000_000, "host_gb": 10_000.0, "disk_gb": 1.0})
    assert (found.units, found.ranks) == (1, 64)
    assert [tier.capacity_tokens for tier in found.tiers] == [3_000_000, 208_038_611, 20_803]
    assert fetch(found) == pytest.approx([63 / 64 * TOKEN / NIC, TOKEN / NIC, TOKEN / DISK])
    assert (found.reserved_blocks, found.shares_hbm) == (733, False)  # 46,875 tokens a rank, 732.4 blocks


def test_a_workers_cache_is_inside_its_node() -> None:
    found = plan({"scope": "worker"})
    assert (found.units, found.ranks) == (8, 8)
    assert fetch(found) == pytest.approx([7 / 8 * TOKEN / NVLINK, TOKEN / PCIE, TOKEN / DISK])


def test_a_rank_has_its_own_blocks_at_hand() -> None:
    found = plan({"scope": "rank"})
    assert (found.units, found.ranks) == (64, 1)
    assert fetch(found)[0] == 0.0
    sharded = plan({"scope": "rank"}, deployment={"serve": {"workers": 2, "gpus": 8, "tp": 8}})
    assert (sharded.role, sharded.units, sharded.ranks) == ("serve", 2, 1)
    assert fetch(sharded)[1] == pytest.approx(TOKEN / PCIE), "every GPU fetches the whole latent"


def test_a_rack_is_one_domain_of_nvlink() -> None:
    """GB200: 32 GPUs of a worker are one NVLink domain of 72, but eight trays of four: host memory is behind the NIC
    (100e9 x 0.8 bytes/s against PCIe 64e9 x 0.85)."""
    pools = {"prefill": {"gpus": 32, "ep": 32}, "decode": {"gpus": 32, "ep": 32}}
    found = plan({"scope": "worker"}, gpu="gb200_nvl72", deployment=pools)
    rack = deploy(scenario({}, gpu="gb200_nvl72", deployment=pools)).gpu
    assert fetch(found)[0] == pytest.approx(31 / 32 * TOKEN / (rack.scale_up_bytes_per_s * 0.8))
    assert fetch(found)[1] == pytest.approx(TOKEN / min(PCIE, rack.scale_out_bytes_per_s * 0.8))


def test_without_a_size_hbm_is_the_whole_budget_of_the_unit() -> None:
    found = plan({"scope": "worker"})
    blocks = deploy(scenario({})).pools["prefill"].memory.kv_blocks
    assert found.tiers[0].capacity_tokens == 8 * 64 * blocks
    assert (found.reserved_blocks, found.shares_hbm) == (0, True)


def test_host_memory_holds_whole_tokens_where_tp_shards_them() -> None:
    """Qwen3-235B in FP8: 2 x 4 heads x 128 x 94 layers = 96,256 bytes; on one of 4 GPUs a quarter."""
    found = plan({"scope": "rank", "host_gb": 96.256}, model="qwen3-235b-a22b",
                 deployment={"serve": {"gpus": 4, "tp": 4, "ep": 4}})  # fmt: skip
    assert found.tiers[1].capacity_tokens == 1_000_000
    assert fetch(found)[1] == pytest.approx(24_064 / PCIE)


def test_what_leaves_no_room_to_run_is_refused() -> None:
    kv = deploy(scenario({})).pools["prefill"].memory
    most = (kv.kv_blocks - 1) * 64 * 64
    deploy(scenario({"scope": "cluster", "hbm_tokens": most}))
    with pytest.raises(DeploymentError, match=f"at most {most:,} for the 64") as raised:
        deploy(scenario({"scope": "cluster", "hbm_tokens": most + 64}))
    assert raised.value.problems[0].path == ("prefix_cache", "hbm_tokens")


def test_what_is_off_has_no_plan() -> None:
    assert deploy(scenario({"enabled": False})).prefix_cache is None
    assert resolve(scenario({}), "decode").prefix_cache is None, "no prompts are computed there"
