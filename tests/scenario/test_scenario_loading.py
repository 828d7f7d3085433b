"""A file becomes a scenario, and a scenario a file: what is read and what is written."""

from pathlib import Path

import pytest
from scenario_text import BASE, problems

from sim.scenario.loading import load, parse, to_yaml
from sim.scenario.reader import scalar
from sim.scenario.schema import Scenario

# --- reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6), ("1E-3", 1e-3), ("2.5", 2.5), (".5", 0.5), ("3.", 3.0), ("-7", -7), ("+7", 7), ("1_000", 1000),
        ("0", 0), ("007", "007"), ("0x10", "0x10"), ("12:30", "12:30"), ("12:30:00", "12:30:00"), ("no", "no"),
        ("on", "on"), ("yes", "yes"), ("true", True), ("False", False), ("", None), ("~", None), ("null", None),
        ("2025-01-02", "2025-01-02"), (".inf", ".inf"), (".nan", ".nan"), ("1e", "1e"), ("_1", "_1"), ("-", "-"),
    ],
)  # fmt: skip
def test_a_scalar_means_what_it_says(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_a_scenario_is_read() -> None:
    scenario = parse(BASE).scenario
    assert scenario.deployment.decode is not None
    assert scenario.deployment.decode.workers == 2
    assert scenario.deployment.decode.tp == 1
    assert scenario.workload.lengths is not None
    assert scenario.workload.lengths.input.lognormal is not None
    assert scenario.workload.lengths.input.lognormal.mean == 1000.0


def test_a_key_with_nothing_after_it_means_its_default() -> None:
    assert parse(BASE + "objectives:\nwarmup_s: ~\n").scenario == parse(BASE).scenario


def test_quoted_text_is_never_a_number() -> None:
    assert problems(BASE.replace("duration_s: 20", 'duration_s: "20"')) == [
        "12:13: duration_s: expected a number above 0 to 1e9 s, got the text '20'"
    ]


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load(tmp_path / "bom.yaml").scenario == parse(BASE).scenario


# --- back to YAML ------------------------------------------------------------------------------------------------


def test_a_scenario_is_written_as_a_file_without_its_defaults() -> None:
    scenario = parse(BASE).scenario
    text = to_yaml(scenario)
    assert parse(text).scenario == scenario
    assert "max_batch_per_gpu" not in text
    assert "kv_cache" not in text
    assert "weights: fp8" in text  # what the model's checkpoint has, and another model's has not


def test_text_that_looks_like_something_else_is_quoted() -> None:
    for name in ("1e6", "no", "12:30", "null", "true", "1_000", "~", "a: b", "#x", "-"):
        scenario = parse(BASE).scenario.model_copy(update={"gpu": name})
        assert parse(to_yaml(scenario)).scenario.gpu == name


def test_every_key_is_described() -> None:
    from sim.scenario.form import key_paths, schema_at  # noqa: PLC0415

    paths = list(key_paths(Scenario))
    assert ("workload", "lengths", "input", "lognormal", "cv") in paths
    assert [path for path in paths if len(schema_at(Scenario, path).get("description", "")) < 10] == []
