"""Every scenario that comes with the project is valid and says what it shows; those about mechanisms show it."""

from functools import cache
from pathlib import Path

import pytest
import yaml

import sim

FOLDER = Path(__file__).parents[2] / "scenarios"
FILES = [p for p in sorted(FOLDER.rglob("*.yaml")) if "base" not in (yaml.safe_load(p.read_text()) or {})]


@cache
def run(name: str, *overrides: str) -> dict:
    return sim.simulate(sim.load(FOLDER / name, overrides)).json()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_a_scenario_is_valid_and_says_what_it_shows(path: Path) -> None:
    sim.load(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 30


def price(name: str, *overrides: str) -> float:
    return run(name, *overrides)["cost"]["usd_per_million"]["blended"]


def test_sparse_attention_is_dearer_at_4k_and_two_to_three_times_cheaper_at_128k() -> None:
    fewer = "workload.requests=96"
    assert price("context/v3.2-4k.yaml", fewer) > price("context/v3.1-4k.yaml", fewer)
    gain = price("context/v3.1-128k.yaml", fewer) / price("context/v3.2-128k.yaml", fewer)
    assert 2 < gain < 3


def test_drafts_gain_less_for_many_users() -> None:
    def speed(name: str) -> float:
        return run(f"drafts/{name}.yaml")["throughput"]["output_tokens_per_s"]

    few, many = speed("1") / speed("0"), speed("busy-1") / speed("busy-0")
    assert few > many > 1


def test_latent_cache_holds_every_conversation_where_keys_and_values_do_not() -> None:
    latent, grouped = (run(f"attention/{name}.yaml") for name in ("mla-deepseek-v3", "gqa-llama-3.1-405b"))
    assert latent["utilization"]["kv_cache_peak"] < 1
    assert grouped["utilization"]["kv_cache_peak"] > 0.99
    speeds = [r["throughput"]["output_tokens_per_s"] for r in (latent, grouped)]
    assert speeds[0] > 4 * speeds[1]
