"""What is wrong with a scenario is said, all at once and at its place."""

import pickle
from pathlib import Path

import pytest
from scenario_text import BASE, problems

from sim.scenario.errors import DeploymentError, Problem, ScenarioError
from sim.scenario.loading import load, parse
from sim.scenario.reader import MAX_FILE_BYTES


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
         "8:36: workload.arrivals.poisson.rate_per_s: expected a number from 1e-6 to 1e6 per second, got -5"),
        ("duration_s: 20", "duration_s: soon",
         "12:13: duration_s: expected a number above 0 to 1e9 s, got the text 'soon'"),
        ("duration_s: 20", "duration_s: 1e999", "12:13: duration_s: expected a number above 0 to 1e9 s, got inf"),
        ("duration_s: 20", "duration_s: true", "12:13: duration_s: expected a number above 0 to 1e9 s, got true"),
        ("duration_s: 20", "warmup_s: -1", "12:11: warmup_s: expected a number from 0 to 1e9 s, got -1"),
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
         "11:23: workload.lengths.output.uniform: expected a list of 2 items, each a whole number from 1 to 1e7 "
         "tokens, got a list of 1"),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "base: chat.yaml\nsearch: {gpu: [h200]}\n",
            "1:1: base: this is a plan or a sweep; `tokenworks plan`",
        ),
        ("model: deepseek-v3\nsearch: {}\n", "2:1: search: this is a plan; `tokenworks plan` answers it"),
        ("base: chat.yaml\ngrid: {router: [round_robin]}\n", "1:1: base: this is a plan or a sweep"),
    ],
)
def test_a_plan_and_a_sweep_are_told_as_what_they_are(text: str, said: str) -> None:
    (one,) = problems(text)
    assert said in one


def test_a_second_duplicate_does_not_hide_the_first() -> None:
    assert len(problems("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2


def test_the_source_line_is_shown_with_a_caret() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(BASE.replace("20", "soon"), "chat.yaml")
    assert str(caught.value) == (
        "chat.yaml:12:13: duration_s: expected a number above 0 to 1e9 s, got the text 'soon'\n"
        "    12 | duration_s: soon\n"
        "       |             ^"
    )


def test_many_mistakes_fill_one_screen() -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(2000))
    with pytest.raises(ScenarioError) as caught:
        parse("{" + keys + "}")
    lines = str(caught.value).splitlines()
    assert len(lines) <= 20
    assert lines[-1].endswith("more such mistakes")


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
