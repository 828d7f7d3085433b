"""Whatever users upload is read as data: a message with its line, and nothing of this machine."""

import json
from pathlib import Path

import pytest

from dashboard.data import scenarios, silicon, validations
from dashboard.data.problems import BadInput
from dashboard.settings import decode, scenario_of
from sim.catalog.profiles import SHIPPED

GOOD = """model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 50}}
duration_s: 60
"""
LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"


def refused(text: str | bytes, name: str = "mine.yaml") -> str:
    raw = text.encode() if isinstance(text, str) else text
    before = scenarios.every()
    with pytest.raises(BadInput) as problem:
        scenarios.upload(name, raw)
    assert scenarios.every() == before
    return str(problem.value)


def test_a_good_scenario_can_be_picked() -> None:
    label = scenarios.upload("my <b>service</b>.yaml", GOOD.encode())
    assert "<" not in label
    assert scenarios.scenario(scenarios.every()[label]).gpu == "h200_sxm"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [deepseek", "mine.yaml:1"),
        ("just words", "expected a section"),
        ("", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
        (b"model: \xff\xfe", "line 1: not UTF-8"),
        ("x" * 300_000, "larger than 256 KiB"),
        (LAUGHS, "anchors and aliases"),
        ("[" * 100_000, "nested more than"),
        (GOOD + "modle: x\n", "mine.yaml:8:1"),
        (GOOD.replace("h200_sxm", "h900"), "mine.yaml:2"),
        (GOOD.replace("gpus: 8, ep: 8", "gpus: 2, ep: 2"), "does not fit"),
        ("!!python/object/apply:os.system ['true']", "tags"),
    ],
    ids=["not YAML", "no section", "empty", "binary", "not text", "huge", "billion laughs", "deep", "unknown key",
         "unknown GPU", "does not fit", "code"],
)  # fmt: skip
def test_a_broken_scenario_is_refused_in_words(text: str | bytes, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    "change",
    [
        ("model: deepseek-v3.2", "extends: /etc/hostname\nmodel: deepseek-v3.2"),
        ("model: deepseek-v3.2", "model: /etc/hostname"),
        ("model: deepseek-v3.2", "model: ../config.json"),
        ("duration_s: 60", "profile: /etc/hostname"),
        ("duration_s: 60", "profile: ../../h200_sxm/sglang"),
        ("{constant: 50}", "{histogram: lengths}"),
        ("poisson: {rate_per_s: 2}", "diurnal: {mean_rate_per_s: 2, curve: /etc/hostname}"),
    ],
    ids=["extends", "model", "relative", "profile", "profile above", "histogram", "curve"],
)
def test_an_upload_names_no_files(change: tuple[str, str]) -> None:
    message = refused(GOOD.replace(*change))
    assert "cannot name files" in message
    assert Path("/etc/hostname").read_text(encoding="utf-8").strip() not in message.replace(
        "/etc/hostname", ""
    )


def test_an_upload_may_name_what_is_shipped() -> None:
    profiled = scenarios.upload(
        "shipped.yaml", GOOD.replace("duration_s: 60", "profile: h200_sxm/sglang\nduration_s: 60").encode()
    )
    trace = GOOD.replace(GOOD[GOOD.index("workload:") :], "workload: {trace: azure-code}\n")
    traced = scenarios.upload("trace.yaml", trace.encode())
    assert {profiled, traced} <= set(scenarios.every())


def test_what_would_not_end_is_refused() -> None:
    huge = GOOD.replace("gpus: 8, ep: 8", "gpus: 1000000, ep: 1, tp: 1")
    assert "up to" in refused(huge) or "ep" in refused(huge)


def test_uploads_are_forgotten_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "MOST_UPLOADED", 2)
    labels = [
        scenarios.upload("x.yaml", GOOD.replace("duration_s: 60", f"duration_s: {n}").encode())
        for n in (61, 62, 63)
    ]
    assert labels[0] not in scenarios.every() and labels[2] in scenarios.every()


RECORD = {
    "operation": "gemm",
    "shape": {"m": 64, "n": 4096, "k": 7168},
    "dtype": "fp8",
    "us_median": 25.0,
    "ok": True,
}


def test_records_are_drawn_beside_a_profile() -> None:
    chart = silicon.compare("h200_sxm/sglang", (json.dumps(RECORD) + "\n").encode())
    assert chart.table.kernel.tolist() == ["gemm"]
    assert chart.table.how.tolist() != [""]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{}\n", "line"),
        (b'{"operation": "gemm"}\n', "not a measured record"),
        (b"\0\1\2", "binary"),
        (b"", "no record"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"x" * (9 * 2**20), "larger than 8 MB"),
        (b"[" * 100_000, "nested too deep"),
        (json.dumps(RECORD | {"shape": {"m": "wide"}}).encode(), "line 1"),
        (json.dumps(RECORD | {"shape": 3}).encode(), "record"),
        (json.dumps(RECORD | {"us_median": 0}).encode(), "line 1"),
        (json.dumps(RECORD | {"us_median": -1}).encode(), "line 1"),
        (json.dumps(RECORD | {"us_median": float("nan")}).encode(), "line 1"),
        (json.dumps(RECORD | {"shape": {}}).encode(), "gemm lacks k, m, n"),
        (json.dumps(RECORD | {"dtype": "int3"}).encode(), "line 1.*dtype: expected int4"),
    ],
    ids=[
        "no keys",
        "lacks keys",
        "binary",
        "empty",
        "not text",
        "huge",
        "deep",
        "words",
        "no shape",
        "zero",
        "negative",
        "NaN",
        "no axes",
        "no dtype",
    ],
)
def test_broken_records_are_refused_in_words(raw: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        silicon.compare("h200_sxm/sglang", raw)


@pytest.mark.parametrize(
    "change", [{"operation": "unheard_of"}, {"options": {"backend": "x"}}, {"dtype": "int4"}]
)
def test_a_record_that_the_profile_does_not_hold_has_no_answer(change: dict[str, object]) -> None:
    chart = silicon.compare("h200_sxm/sglang", json.dumps(RECORD | change).encode())
    assert chart.table.how.tolist() in ([""], ["fitted"], ["measured"], ["extrapolated"])


def test_a_profile_is_one_of_those_shipped() -> None:
    with pytest.raises(BadInput, match="no profile"):
        silicon.tables("../../../etc")


CASE = {
    "id": "a",
    "metric": "tpot",
    "published": 1.5,
    "simulated": 2,
    "error": 0.3,
    "split": "test",
    "model": "m",
}
TRICKY = "![x](http://127.0.0.1:9988/leak.png) [y](http://evil.example) **b** `c` <img src=x>"


def test_texts_of_a_validation_stay_texts() -> None:
    """What stands in a sentence of the page is Markdown there."""
    cases = validations.read(json.dumps({"cases": [CASE | {"model": TRICKY, "metric": TRICKY}]}).encode())
    said = validations.headline(cases, cases.metric[0])
    assert not set("![]`<>") & set(said) and "](" not in said and "**b**" not in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("m", "/etc/hostname"), ("m", "../../etc/passwd"), ("m", "config.json"), ("m", "/etc"), ("g", "/etc/gpu.yaml"),
        ("g", "gpu.yml"), ("m", "C:\\config"),
    ],
)  # fmt: skip
def test_the_address_of_a_page_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    """Whether the file exists makes no difference to what is said."""
    monkeypatch.chdir(tmp_path)
    said = set()
    for there in (False, True):
        for name in ("config.json", "gpu.yml") if there else ():
            (tmp_path / name).write_text("{}")
        with pytest.raises(BadInput, match="cannot name files") as raised:
            scenarios.spell(scenario_of(decode(f"{key}:{value}")))
        said.add(str(raised.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "line 1, column"),
        (b"\xff\xfe", "UTF-8|JSON"),
        (b"[]", "validate --json"),
        (b'{"cases": [1]}', "validate --json"),
        (b"[" * 200_000, "nested too deep|JSON"),
        (b"x" * (17 * 2**20), "larger than 16 MB"),
        *((json.dumps({"cases": [CASE, CASE | {key: value}]}).encode(), f"case 2: {key}: expected")
          for key in (*CASE, "half", "layout")
          for value in ([1], {"a": 1}, float("inf"), float("nan"), 1.7e308, 10**400, -1e16)),
        *((json.dumps({"cases": [CASE, CASE | {key: value}]}).encode(), f"case 2: {key}: expected a number up to")
          for key in ("published", "simulated", "error") for value in ("inf", "-inf", "1e400", "1e16")),
        (json.dumps({"cases": [CASE], "columns": {"l": {"gpu": ["x"]}}}).encode(), "gpu: expected"),
        (json.dumps({"cases": [CASE]}).replace("1.5", "1e999").encode(), "published: expected"),
    ],
)  # fmt: skip
def test_a_broken_validation_is_refused_in_words(raw: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        validations.read(raw)


def test_every_profile_that_ships_can_be_looked_at() -> None:
    headers = SHIPPED.rglob("profile.yaml")
    assert sorted(silicon.profiles()) == sorted(h.parent.relative_to(SHIPPED).as_posix() for h in headers)
    name = "b200_sxm/vllm/deepseek-v4-pro"
    assert all(len(silicon.fit(name, key)) == 2 for key in silicon.tables(name))
