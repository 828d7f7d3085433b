"""A file becomes a scenario: what is read, merged and overridden, and what each mistake is told."""

import pickle
from pathlib import Path

import pytest

from sim.scenario.errors import DeploymentError, Problem, ScenarioError
from sim.scenario.loading import apply, load, parse, to_yaml
from sim.scenario.reader import MAX_FILE_BYTES, scalar
from sim.scenario.schema import Scenario

BASE = """\
model: deepseek-v3.2
gpu: h200_sxm
deployment:
  prefill: {workers: 1, gpus: 8, tp: 1, ep: 8}
  decode: {workers: 2, gpus: 16, ep: 16}
precision: {weights: fp8, kv_cache: fp8}
workload:
  arrivals: {poisson: {rate_per_s: 5}}
  lengths:
    input: {lognormal: {mean: 1e3, cv: 1.0}}
    output: {constant: 250}
duration_s: 20
price: {usd_per_gpu_hour: 2.0}
"""


def problems(text: str, *overrides: str) -> list[str]:
    """What is wrong with the text: `line:column: key: message` of each problem, without the excerpt."""
    with pytest.raises(ScenarioError) as caught:
        parse(text, "f", overrides)
    return [str(problem).splitlines()[0].removeprefix("f:") for problem in caught.value.problems]


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
        "12:13: duration_s: expected a number above 0 to 1e9, got the text '20'"
    ]


# --- what is wrong is said, at its place -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpu:", "gpuu:", "2:1: gpuu: unknown key; did you mean 'gpu'?"),
        ("decode:", "decod:", "5:3: deployment.decod: unknown key; did you mean 'decode'?"),
        ("cv: 1.0", "vc: 1.0", "10:36: workload.lengths.input.lognormal.vc: unknown key; did you mean 'cv'?"),
        (
            "duration_s: 20", "tp: 8",
            "12:1: tp: unknown key here; did you mean deployment.prefill.tp or deployment.decode.tp "
            "or deployment.serve.tp?",
        ),
        ("weights", "zzz", "6:13: precision.zzz: unknown key; expected one of: weights, attention, dense, kv_cache"),
        ("duration_s: 20", "extend: x", "12:1: extend: unknown key; did you mean 'extends'?"),
        ("rate_per_s: 5", "rate_per_s: -5",
         "8:36: workload.arrivals.poisson.rate_per_s: expected a number from 1e-6 to 1e6, got -5"),
        ("duration_s: 20", "duration_s: soon",
         "12:13: duration_s: expected a number above 0 to 1e9, got the text 'soon'"),
        ("duration_s: 20", "duration_s: 1e999", "12:13: duration_s: expected a number above 0 to 1e9, got inf"),
        ("duration_s: 20", "duration_s: true", "12:13: duration_s: expected a number above 0 to 1e9, got true"),
        ("duration_s: 20", "warmup_s: -1", "12:11: warmup_s: expected a number from 0 to 1e9, got -1"),
        ("workers: 2", "workers: 1.5",
         "5:21: deployment.decode.workers: expected a whole number from 1 to 100000, got 1.5"),
        ("workers: 2", "workers: 0",
         "5:21: deployment.decode.workers: expected a whole number from 1 to 100000, got 0"),
        ("gpus: 16, ", "", "5:3: deployment.decode.gpus: this key is required and missing (GPUs of one worker)"),
        ("kv_cache: fp8", "kv_cache: fp88",
         "6:37: precision.kv_cache: expected one of bf16, fp8, fp8_fp4, got the text 'fp88'; did you mean 'fp8'?"),
        ("precision: {weights: fp8, kv_cache: fp8}", "precision: fp8",
         "6:12: precision: expected a section with keys such as weights, attention, dense, kv_cache, "
         "got the text 'fp8'"),
        ("gpu: h200_sxm", "gpu: 200", "2:6: gpu: expected a name or a file, got 200"),
        ("gpu: h200_sxm", "gpu: [h200_sxm]", "2:6: gpu: expected a name or a file, got a list of 1"),
        ("gpu: h200_sxm", "gpu: {name: x}", "2:1: gpu: expected a name or a file, got a section"),
        ("{constant: 250}", "{uniform: [3]}",
         "11:23: workload.lengths.output.uniform: expected a list of 2 items, each a whole number from 1 to 1e7, "
         "got a list of 1"),
        ("{constant: 250}", "{uniform: [9, 3]}", "11:5: workload.lengths.output: uniform: low 9 is above high 3"),
        ("{constant: 250}", "{}",
         "11:5: workload.lengths.output: expected exactly one of constant, uniform, lognormal, histogram; got none"),
        ("{poisson: {rate_per_s: 5}}", "{poisson: {rate_per_s: 5}, closed_loop: {concurrency: 3}}",
         "8:3: workload.arrivals: expected exactly one of poisson, gamma, closed_loop, diurnal, all_at_once; "
         "got poisson and closed_loop"),
        ("  decode:", "  serve:",
         "3:1: deployment: expected either `prefill` and `decode`, or one `serve` pool; got `prefill` and `serve`"),
        ("{usd_per_gpu_hour: 2.0}", "{usd_per_gpu_hour: 2.0, tier: spot}",
         "13:1: price: expected `tier` or `usd_per_gpu_hour`, not both"),
        ("{usd_per_gpu_hour: 2.0}", "{margin: 1}", "13:17: price.margin: expected a number from 0 to below 1, got 1"),
        ("duration_s: 20", "speculation: {acceptance: [0.5, 2]}",
         "12:33: speculation.acceptance.1: expected a number from 0 to 1, got 2"),
        ("duration_s: 20", "prefix_cache: {enabled: no}",
         "12:25: prefix_cache.enabled: expected true or false, got the text 'no'"),
        ("gpu: h200_sxm", "model: deepseek-v3", "2:1: model: duplicate key; first at line 1"),
        ("gpu: h200_sxm", "gpu: [1, 2", "3:11: not valid YAML: expected ',' or ']', but got ':' while parsing a flow "
         "sequence that starts at line 2"),
        ("gpu: h200_sxm", "gpu: &a h200", "2:6: YAML anchors and aliases (& and *) are not supported; use `extends`"),
        ("gpu: h200_sxm", "gpu: *a", "2:6: YAML anchors and aliases (& and *) are not supported; use `extends`"),
        ("gpu: h200_sxm", "gpu: !!python/name:os.system x",
         "2:6: YAML tags (tag:yaml.org,2002:python/name:os.system) are not supported; quote the text if it is text"),
        ("gpu: h200_sxm", "gpu: h\x07", "2:7: not text: character U+0007 is not allowed"),
        ("gpu: h200_sxm", '"gpu\\nx": 1', "2:1: text on several lines, or with characters that cannot be printed"),
        ("gpu: h200_sxm", "{a: 1}: 2", "2:1: a key must be text"),
        ("gpu: h200_sxm", '"": 2', "2:1: a key must be text"),
        ("gpu: h200_sxm", "gpu: h200_sxm\n---\ngpu: x", "3:1: a second document starts here; expected one per file"),
        ("duration_s: 20\n", "", "1:1: a synthetic workload needs `duration_s` or `workload.requests` to end"),
        ("duration_s: 20", "duration_s: 20\nwarmup_s: 20", "13:11: warmup_s: 20 leaves nothing of duration_s 20"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_sentence_at_its_place(old: str, new: str, said: str) -> None:
    assert old in BASE
    assert problems(BASE.replace(old, new, 1)) == [said]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        BASE.replace("gpu:", "gpuu:")
        .replace("workers: 2", "workers: two")
        .replace("duration_s: 20", "duration_s: 0")
    )
    assert [p.split(": ")[1] for p in problems(text)] == ["gpuu", "deployment.decode.workers", "duration_s"]


def test_a_second_duplicate_does_not_hide_the_first() -> None:
    assert len(problems("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2


def test_the_source_line_is_shown_with_a_caret() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(BASE.replace("20", "soon"), "chat.yaml")
    assert str(caught.value) == (
        "chat.yaml:12:13: duration_s: expected a number above 0 to 1e9, got the text 'soon'\n"
        "    12 | duration_s: soon\n"
        "       |             ^"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " the file is empty; expected a scenario"),
        ("# nothing\n", " the file is empty; expected a scenario"),
        ("- a", "1:1: expected a section with keys such as model, gpu"),
        ("just words", "1:1: expected a section with keys such as model, gpu"),
    ],
)
def test_a_document_that_is_no_scenario(text: str, said: str) -> None:
    assert problems(text) == [said]


def test_deep_nesting_and_alias_bombs_are_refused() -> None:
    assert "nested more than" in problems("[" * 10_000)[0]
    assert "nested more than" in problems("a: " + "{a: " * 10_000)[0]
    bomb = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*a, *a]\n" for i in range(9))
    assert "aliases" in problems(bomb)[0]
    assert "larger than" in problems("a" * (MAX_FILE_BYTES + 1))[0]


def test_the_error_survives_simpy_which_rebuilds_it_from_its_arguments() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse("gpu: 1")
    error = caught.value
    again = type(error)(*error.args)
    assert str(again) == str(error)
    assert again.problems == error.problems
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    deployment = DeploymentError([Problem(("gpu",), "unknown")])
    assert str(type(deployment)(*deployment.args)) == "gpu: unknown"


# --- files -------------------------------------------------------------------------------------------------------


def file_problem(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    return problem.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(BASE)
    (tmp_path / "binary.yaml").write_bytes(b"model: \0\1\2")
    (tmp_path / "latin.yaml").write_bytes("model: x\n# caf\xe9\n".encode("latin-1"))
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert file_problem(tmp_path / "chta.yaml") == "no such file; did you mean 'chat.yaml'?"
    assert "there is no folder" in file_problem(tmp_path / "nowhere" / "chat.yaml")
    assert file_problem(tmp_path) == "this is a folder; expected a YAML file"
    assert file_problem(tmp_path / "binary.yaml") == "a binary file; expected YAML text"
    assert file_problem(tmp_path / "latin.yaml") == "not UTF-8 text: byte 0xe9"
    assert "larger than 256 KiB" in file_problem(tmp_path / "huge.yaml")
    assert "cannot be read" in file_problem(tmp_path / ("x" * 400))
    assert "cannot be read" in file_problem(tmp_path / "a\0b")
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "latin.yaml")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, 6)


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load(tmp_path / "bom.yaml").scenario == parse(BASE).scenario


# --- extends -----------------------------------------------------------------------------------------------------


def test_extends_merges_section_by_section_and_keeps_the_places_of_both_files(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text(BASE)
    (tmp_path / "bases" / "middle.yaml").write_text("extends: base.yaml\nduration_s: 30\n")
    (tmp_path / "top.yaml").write_text("extends: bases/middle.yaml\ndeployment:\n  decode: {workers: 5}\n")
    loaded = load(tmp_path / "top.yaml")
    assert loaded.scenario.duration_s == 30
    assert loaded.scenario.deployment.decode is not None
    assert loaded.scenario.deployment.decode.workers == 5
    assert loaded.scenario.deployment.decode.gpus == 16
    assert [Path(source).name for source in loaded.sources] == ["top.yaml", "middle.yaml", "base.yaml"]
    places = loaded.positions
    assert Path(places[("gpu",)].file).name == "base.yaml"
    workers = places["deployment", "decode", "workers"]
    assert (Path(workers.file).name, workers.line) == ("top.yaml", 3)
    (tmp_path / "bases" / "base.yaml").write_text(BASE.replace("ep: 16", "ep: x"))
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "top.yaml")
    (problem,) = caught.value.problems
    assert problem.file == str(tmp_path / "bases" / "base.yaml")
    assert problem.line == 5


def test_extends_round_in_a_circle_and_into_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("gpu: x\nextends: ./a.yaml\n")
    (tmp_path / "lost.yaml").write_text("extends: aa.yaml\n")
    (tmp_path / "list.yaml").write_text("extends: [a.yaml]\n")
    said = []
    for name in ("a.yaml", "lost.yaml", "list.yaml"):
        with pytest.raises(ScenarioError) as caught:
            load(tmp_path / name)
        said.append(caught.value.problems[0])
    assert said[0].message == "goes round in a circle: a.yaml -> b.yaml -> a.yaml"
    assert (said[0].file, said[0].line, said[0].column) == (str(tmp_path / "b.yaml"), 2, 10)
    assert said[1].message == f"{tmp_path / 'aa.yaml'}: no such file; did you mean 'a.yaml'?"
    assert (said[1].line, said[1].column) == (1, 10)
    assert said[2].message == "expected the name of another scenario file"


def test_another_choice_takes_the_place_of_the_base_s(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "top.yaml").write_text(
        "extends: base.yaml\ndeployment: {serve: {gpus: 8}}\nprice: {tier: rent_3yr}\n"
        "workload: {arrivals: {closed_loop: {concurrency: 64}}, lengths: {input: {constant: 7}}}\n"
    )
    scenario = load(tmp_path / "top.yaml").scenario
    assert list(scenario.deployment.pools()) == ["serve"]
    assert scenario.price.usd_per_gpu_hour is None
    assert scenario.workload.arrivals is not None
    assert scenario.workload.arrivals.poisson is None
    assert scenario.workload.lengths is not None
    assert scenario.workload.lengths.input.constant == 7
    assert scenario.workload.lengths.output.constant == 250


# --- overrides ---------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_lie_on_top() -> None:
    loaded = parse(
        BASE,
        "f",
        [
            "deployment.decode.max_batch_per_gpu=1e2",
            "workload.lengths.output.uniform=[3, 5]",
            "duration_s=",
            "workload.requests=10",
        ],
    )
    decode, lengths = loaded.scenario.deployment.decode, loaded.scenario.workload.lengths
    assert decode is not None
    assert lengths is not None
    assert decode.max_batch_per_gpu == 100
    assert lengths.output.uniform == (3, 5)
    assert lengths.output.constant is None
    assert loaded.scenario.duration_s is None
    assert loaded.data["workload"]["requests"] == 10  # type: ignore[index]


def test_a_trace_with_other_arrivals_can_be_set_in_any_order() -> None:
    sets = ["workload.arrivals.poisson.rate_per_s=3", "workload.trace=azure-code"]
    for order in (sets, sets[::-1]):
        workload = parse(BASE, "f", order).scenario.workload
        assert workload.trace == "azure-code"
        assert workload.lengths is None
        assert workload.arrivals is not None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("deployment.decode.tp=-3", "--set deployment.decode.tp: expected a whole number from 1 to 100000, got -3"),
        ("deployment.decod.tp=3", "--set deployment.decod.tp: deployment.decod: unknown key; did you mean 'decode'?"),
        ("gpuu=h200", "--set gpuu: unknown key; did you mean 'gpu'?"),
        ("gpu", "--set gpu: expected key.path=value"),
        ("=3", "--set =3: expected key.path=value"),
        ("a..b=3", "--set a..b=3: expected key.path=value"),
        ("gpu=[1",
         "--set gpu:1:3: not valid YAML: expected ',' or ']', but got '<stream end>' "
         "while parsing a flow sequence"),
        ("gpu.x=3", "--set gpu.x: gpu: expected a name or a file, got a section"),
        ("workload.trace=lost.csv", "--set workload.trace: no such file: lost.csv"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_itself(override: str, said: str) -> None:
    assert problems(BASE, override) == [said]


def test_the_same_key_cannot_be_set_twice() -> None:
    assert problems(BASE, "gpu=a", "gpu=b") == ["--set gpu: set twice"]


def test_apply_makes_another_point_of_a_sweep() -> None:
    loaded = parse(BASE)
    point = apply(loaded, {"gpu": "b200_sxm", "deployment.serve": {"gpus": 8}})
    assert point.scenario.gpu == "b200_sxm"
    assert list(point.scenario.deployment.pools()) == ["serve"]
    assert loaded.scenario.gpu == "h200_sxm"
    with pytest.raises(ScenarioError, match="override duration_s: expected a number above 0 to 1e9, got -1"):
        apply(loaded, {"duration_s": -1})


# --- files that a scenario names ---------------------------------------------------------------------------------


def test_files_are_found_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bases").mkdir()
    trace = tmp_path / "bases" / "mine.csv"
    trace.write_text("x")
    text = BASE[: BASE.index("workload:")] + "workload: {trace: mine.csv}\nprofile: h200_sxm/sglang\n"
    (tmp_path / "bases" / "base.yaml").write_text(text)
    (tmp_path / "top.yaml").write_text("extends: bases/base.yaml\n")
    monkeypatch.chdir(tmp_path)
    scenario = load("top.yaml").scenario
    assert scenario.workload.trace == str(trace.resolve())
    assert scenario.profile == "h200_sxm/sglang"
    assert load("top.yaml", ["workload.trace=bases/mine.csv"]).scenario.workload.trace == str(trace.resolve())
    assert load("top.yaml", ["workload.trace=azure-code"]).scenario.workload.trace == "azure-code"
    with pytest.raises(ScenarioError) as caught:
        load("top.yaml", ["workload.trace=bases/mien.csv"])
    assert str(caught.value) == "--set workload.trace: no such file: bases/mien.csv; did you mean 'mine.csv'?"
    (tmp_path / "bases" / "base.yaml").write_text(
        text.replace("mine.csv", "mien.csv").replace("ep: 8", "ep: -8")
    )
    with pytest.raises(ScenarioError) as caught:
        load("top.yaml")
    assert [p.line for p in caught.value.problems] == [4, 7]
    assert str(caught.value.problems[1]).splitlines()[0] == (
        "bases/base.yaml:7:19: workload.trace: no such file: mien.csv; did you mean 'mine.csv'?"
    )


# --- the second stage --------------------------------------------------------------------------------------------


def test_problems_of_the_deployment_get_the_place_of_their_key() -> None:
    error = parse(BASE, "f").located(
        [
            Problem(("deployment", "decode", "ep"), "does not divide"),
            Problem(("deployment", "prefill"), "does not fit"),
            Problem(("deployment", "decode", "chunk_tokens"), "a default that does not fit"),
            Problem((), "nothing fits"),
        ]
    )
    ep_column = BASE.splitlines()[4].index("ep: 16") + len("ep: ") + 1
    assert [(p.line, p.column) for p in error.problems] == [(5, ep_column), (4, 3), (5, 3), (1, 1)]
    assert str(error).startswith(
        f"f:5:{ep_column}: deployment.decode.ep: does not divide\n     5 |   decode:"
    )


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


def test_many_mistakes_fill_one_screen() -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(2000))
    with pytest.raises(ScenarioError) as caught:
        parse("{" + keys + "}")
    lines = str(caught.value).splitlines()
    assert len(lines) <= 20
    assert lines[-1].endswith("more such mistakes")
