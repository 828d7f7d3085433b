"""Every number of a scenario has two ends: both load and are answered, what lies beyond is refused at its key."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.anchor import AnchorFile
from sim.scenario.errors import KeyPath, ScenarioError, dotted
from sim.scenario.form import expected, key_paths, schema_at
from sim.scenario.gpu_file import GpuFile
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.scenario.section import Section

SERVE = {"gpus": 8, "ep": 8}
BASES: tuple[dict[str, Any], ...] = (
    {"deployment": {"serve": SERVE}}, {"deployment": {"prefill": dict(SERVE), "decode": dict(SERVE)}},
)  # fmt: skip
LENGTHS = {"input": {"constant": 100}, "output": {"constant": 5}}


def numbers(form: type[Section]) -> list[KeyPath]:
    return [path for path in key_paths(form) if schema_at(form, path).get("type") in ("integer", "number")]


def ends(form: type[Section], path: KeyPath) -> tuple[float, float]:
    schema = schema_at(form, path)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    assert low is not None and high is not None, f"{dotted(path)}: {low} to {high}"
    return low, high


@pytest.mark.parametrize("form", [Scenario, GpuFile])
def test_every_number_is_bounded(form: type[Section]) -> None:
    assert len(numbers(form)) > 5
    for path in numbers(form):
        low, high = ends(form, path)
        assert -math.inf < low < high <= 1e18, dotted(path)


IN_NAMES = (("_bytes_per_s", "bytes/s"), ("_flop_per_s", "FLOP/s"), ("_per_s", "per second"), ("_s", "s"), ("_h", "h"),
            ("_gb", "GB"), ("_bytes", "bytes"), ("_tokens", "tokens"))  # fmt: skip
OTHERS = {"constant": "tokens", "mean": "tokens", "dense_threshold": "tokens", "per_gpu_hour": "per hour"}


def unit_in(name: str) -> str | None:
    if name.startswith(("usd_per_", "host_usd_per_", "disk_usd_per_")):
        return "USD"
    return OTHERS.get(name) or next((unit for end, unit in IN_NAMES if name.endswith(end)), None)


@pytest.mark.parametrize("form", [Scenario, GpuFile, AnchorFile])
def test_every_bound_is_told_with_its_unit(form: type[Section]) -> None:
    for path in numbers(form):
        schema = schema_at(form, path)
        assert schema.get("unit") == unit_in(str(path[-1])), dotted(path)
        assert expected(schema).endswith(f" {schema.get('unit', '')}") or "unit" not in schema, dotted(path)


def scenario(path: KeyPath, value: float) -> str:
    """A small scenario that has the value at the path."""
    base = BASES[path[:2] in (("deployment", "prefill"), ("deployment", "decode"))]
    data: dict[str, Any] = deepcopy({
        "model": "deepseek-v3.2", "gpu": "h200_sxm", **base, "duration_s": 10,
        "workload": {"requests": 5, "arrivals": {"poisson": {"rate_per_s": 2}}, "lengths": LENGTHS},
    })  # fmt: skip
    node = data
    for key in path[:-1]:
        if key in ("arrivals", "input", "output"):
            node[key] = {}
        node = node.setdefault(key, {})
    node[path[-1]] = value
    beside = {"gamma": {"rate_per_s": 2, "cv": 1}, "lognormal": {"mean": 100, "cv": 1}}
    if isinstance(node, dict) and path[-2:-1] and path[-2] in beside:
        node.update({key: other for key, other in beside[str(path[-2])].items() if key not in node})
    if path == ("workload", "arrivals", "diurnal", "mean_rate_per_s"):
        node["curve"] = "deepseek-24h"
    if path[0] == "prefix_cache":
        node["enabled"] = True
    return str(yaml.safe_dump(data, sort_keys=False))


@pytest.mark.parametrize("path", numbers(Scenario), ids=dotted)
def test_the_ends_of_a_number_are_answered_and_what_is_beyond_refused(tmp_path: Path, path: KeyPath) -> None:
    low, high = ends(Scenario, path)
    whole = schema_at(Scenario, path)["type"] == "integer"
    step = 1 if whole else max(abs(high), 1.0)
    for beyond in (low - step, high + step, math.inf, -math.inf, math.nan, 1e300, 10**30):
        with pytest.raises(ScenarioError) as raised:
            parse(scenario(path, beyond))
        assert any(p.path == path for p in raised.value.problems), (beyond, str(raised.value))
    for end in (low, high):
        file = tmp_path / "s.yaml"
        file.write_text(scenario(path, int(end) if whole else float(end)))
        told = CliRunner().invoke(app, ["check", str(file), "--json"])
        assert isinstance(told.exception, SystemExit | None), told.exception
        assert told.exit_code in (0, 2) and told.stderr.count("\n") <= 20
