"""What holds for every scenario and for every mistake, tried on random ones."""

import re
import string
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.scenario.errors import ScenarioError
from sim.scenario.form import key_paths
from sim.scenario.loading import load, parse, to_yaml
from sim.scenario.schema import Scenario

counts = st.integers(1, 10**6)
positive = st.floats(1e-6, 1e9)
rates, variations = st.floats(1e-6, 1e6), st.floats(1e-3, 100)
gpus = st.integers(1, 300)
fractions = st.floats(0, 1)
# Names of models and GPUs: anything that can be printed and is no file's name; YAML's own characters above all.
names = st.text(
    st.one_of(
        st.sampled_from("-:#{}[]&*!|>%@`'\",~?= _0123456789eExon"),
        st.characters(codec="utf-8", exclude_characters=".").filter(str.isprintable),
    ),
    min_size=1,
).filter(lambda name: name.strip("/"))  # the root of the file system is a folder that is there


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


experts = optional(
    redundant=gpus,
    popularity_sigma=st.floats(0.01, 10),
    staleness_rho=fractions,
    node_limit=st.none() | counts,
)
pool = st.fixed_dictionaries(
    {"gpus": gpus},
    optional={"workers": gpus, "tp": gpus, "ep": gpus, "chunk_tokens": counts, "experts": experts},
)
lengths = st.one_of(
    st.fixed_dictionaries({"constant": counts}),
    st.fixed_dictionaries({"uniform": st.lists(counts, min_size=2, max_size=2).map(sorted)}),
    st.fixed_dictionaries(
        {"lognormal": st.fixed_dictionaries({"mean": st.floats(1, 1e7), "cv": variations})}
    ),
)
arrivals = st.one_of(
    st.fixed_dictionaries({"poisson": st.fixed_dictionaries({"rate_per_s": rates})}),
    st.fixed_dictionaries({"closed_loop": st.fixed_dictionaries({"concurrency": counts})}),
    st.just({"all_at_once": {}}),
)
synthetic = st.fixed_dictionaries(
    {"arrivals": arrivals, "lengths": st.fixed_dictionaries({"input": lengths, "output": lengths})},
    optional={"requests": counts, "cached_fraction": fractions},
)
seconds = st.floats(0, 1e9)
autoscale = optional(
    signal=st.just("utilization"),
    target=positive,
    period_s=st.floats(1, 1e9),
    tolerance=fractions,
    start_up_s=seconds,
    scale_down_after_s=seconds,
)
failures = optional(
    per_gpu_hour=st.floats(0, 10),
    detect_s=seconds,
    restart_s=seconds,
    repair_h=st.floats(0, 1e5),
    spare_nodes=st.integers(0, 1000),
    retry=st.sampled_from(["start", "prefix_cache"]),
)


def scaled(keys: dict[str, Any]) -> dict[str, Any]:
    """The autoscaler's bounds are those of pools that there are; a fleet has none."""
    if "autoscale" in keys:
        bounds = {role: {"max": 300} for role in keys["deployment"]}
        keys = {**keys, "autoscale": {**keys["autoscale"], "pools": bounds}}
        keys.pop("fleet", None)
    return keys


scenarios = st.fixed_dictionaries(
    {
        "model": names,
        "gpu": names,
        "deployment": st.one_of(
            st.fixed_dictionaries({"serve": pool}), st.fixed_dictionaries({"prefill": pool, "decode": pool})
        ),
        "workload": st.one_of(st.fixed_dictionaries({"trace": names}), synthetic),
        "duration_s": positive,
    },
    optional={
        "engine": st.sampled_from(["sglang", "trtllm", "vllm", "deepseek"]),
        "precision": optional(weights=st.sampled_from(["bf16", "nvfp4"]), kv_cache=st.just("bf16")),
        "speculation": optional(
            draft_tokens=st.integers(0, 16), acceptance=st.lists(fractions, min_size=1, max_size=4)
        ),
        "experts": experts,
        "prefix_cache": optional(enabled=st.booleans(), hbm_tokens=st.integers(0, 10**9), host_gb=positive),
        "objectives": optional(ttft_p99_s=positive, e2e_p99_s=positive),
        "price": optional(usd_per_gpu_hour=rates, overhead_fraction=variations, margin=st.floats(0, 0.99)),
        "autoscale": autoscale,
        "failures": failures,
        "fleet": st.just({"replicas": 1, "simulated": 1}),
    },
).map(lambda keys: Scenario.model_validate(scaled(keys)))


@settings(max_examples=80, deadline=None)
@given(scenarios)
def test_a_scenario_survives_the_way_through_yaml(scenario: Scenario) -> None:
    assert parse(to_yaml(scenario)).scenario == scenario


def spelled(lines: list[str]) -> list[int]:
    """The lines that hold a key."""
    return [i for i, line in enumerate(lines) if line.split(":")[0].strip().isidentifier()]


@settings(max_examples=80, deadline=None)
@given(scenarios, st.data())
def test_a_misspelt_key_is_found_on_its_line(scenario: Scenario, data: st.DataObject) -> None:
    # Names are plain here, so that each line of the file holds exactly one key.
    plain = scenario.model_copy(update={"model": "m", "gpu": "g"})
    if plain.workload.trace:
        plain = plain.model_copy(update={"workload": plain.workload.model_copy(update={"trace": "t"})})
    lines = to_yaml(plain).splitlines()
    row = data.draw(st.sampled_from(spelled(lines)))
    key = lines[row].split(":")[0].strip()
    at = data.draw(st.integers(0, len(key)))
    wrong = key[:at] + data.draw(st.sampled_from(string.ascii_lowercase + "_")) + key[at:]
    known = {path[-1] for path in key_paths(Scenario)}
    if wrong in known:
        return
    column = lines[row].index(key) + 1
    lines[row] = lines[row].replace(key, wrong, 1)
    try:
        parse("\n".join(lines), "f")
    except ScenarioError as error:
        unknown = [p for p in error.problems if p.path and p.path[-1] == wrong]
        assert [(p.line, p.column) for p in unknown] == [(row + 1, column)]
        assert "unknown key" in unknown[0].message
    else:
        raise AssertionError(f"{wrong} was accepted")


@settings(max_examples=80, deadline=None)
@given(scenarios, st.data())
def test_a_wrong_value_is_found_on_its_line(scenario: Scenario, data: st.DataObject) -> None:
    lines = to_yaml(scenario).splitlines()
    rows = [i for i in spelled(lines) if re.fullmatch(r"[0-9.]+", lines[i].split(":")[1].strip())]
    row = data.draw(st.sampled_from(rows))
    indent = lines[row].split(":")[0]
    wrong = data.draw(st.sampled_from(["-1", "soon", "true", "[]", "{a: 1}", '"8"', "1e999"]))
    lines[row] = f"{indent}: {wrong}"
    try:
        parse("\n".join(lines), "f")
    except ScenarioError as error:
        assert {problem.line for problem in error.problems} == {row + 1}
        assert not any(word in str(error) for word in ("Input should", "pydantic", "type=", "validat"))
    else:
        raise AssertionError(f"{lines[row]} was accepted")


yaml_pieces = st.lists(
    st.sampled_from(
        ["model", "gpu", ": ", ":", "\n", "  ", "- ", "{", "}", "[", "]", ", ", "&a ", "*a", "!!int ", "'", '"', "\\x",
         "#", "|", ">", "%YAML 9", "---", "...", "? ", "1e6", "-1", "null", "deployment", "\t", "<<", "extends", "\x85",
         "\\U00ffffff", "%TAG ! x", "!<%ff>", "9" * 5000, "\ufeff"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.one_of(yaml_pieces, st.text(st.characters(), max_size=40)))
def test_random_text_gives_nothing_but_a_scenario_error(text: str) -> None:
    try:
        parse(text, "f")
    except ScenarioError as error:
        assert error.problems
        str(error).encode()  # what is shown can always be printed


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), yaml_pieces.map(lambda text: text.encode("utf-8", "replace"))))
def test_random_bytes_give_nothing_but_a_scenario_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "random.yaml"
    path.write_bytes(raw)
    try:
        load(path)
    except ScenarioError as error:
        assert error.problems


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_a_random_override_gives_nothing_but_a_scenario_error(text: str) -> None:
    base = "model: m\ngpu: g\ndeployment: {serve: {gpus: 8}}\nworkload: {trace: t}\n"
    for override in (text, f"gpu={text}", f"workload.trace={text}", f"{text}=1", f"workload.{text}=1"):
        try:
            parse(base, "f", [override])
        except ScenarioError as error:
            assert error.problems
