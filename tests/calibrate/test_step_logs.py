"""Lines of engines' logs become timed steps, those that tell how long one took."""

import pytest
from made_up_steps import run, sglang_decode, sglang_prefill

from calibrate.step.reading import read_steps
from calibrate.step.timed import Beside, NoSteps


def test_a_decode_line_of_sglang_is_a_step_behind_one_of_as_many_sequences(tmp_path):
    lines = [
        sglang_decode(7, 1000, 0.030),  # the first: who knows since when
        sglang_decode(7, 1005, 0.031),
        sglang_prefill(64, 0.02).replace("DP0", "DP3"),
        sglang_decode(7, 1010, 0.050),  # a prompt between
        sglang_decode(8, 1000, 0.032),  # another batch
        sglang_decode(8, 1005, 0.033).replace(
            "cuda graph", "accept len: 2.00, accept rate: 0.60, cuda graph"
        ),
        "[2025-06-03 17:55:56 DP3] Decode batch. #running-req: 8, #token: 8080, token usage: 0.82, "
        "gen throughput (token/s): 200.00, #queue-req: 317",  # as releases of 2024 wrote it
        "[2025-06-03 17:55:57 DP4] Decode batch. #running-req: 8, #token: 8080, token usage: 0.82, "
        "gen throughput (token/s): 400.00, #queue-req: 317",  # another rank
    ]
    (path := tmp_path / "log").write_text("\n".join(lines))
    found = read_steps(path, Beside())
    assert [(step.sequences, step.context) for step in found] == [(7, 1005), (8, 1005), (8, 1010)]
    assert [step.seconds for step in found] == pytest.approx([0.031, 0.066, 0.04], rel=1e-3)


def test_a_prefill_line_of_sglang_is_a_step_while_requests_wait(tmp_path):
    lines = [
        sglang_prefill(512, 9.0),
        sglang_prefill(512, 0.040, cached=100),
        sglang_prefill(256, 0.030),  # of these or those tokens, by release
        sglang_prefill(256, 0.020, queue=0),
        sglang_prefill(256, 5.0),  # nothing was waiting
    ]
    (path := tmp_path / "log").write_text("\n".join(lines))
    first, second = read_steps(path, Beside())
    assert (first.tokens, first.held, first.seconds) == (512, 612, pytest.approx(0.040, rel=1e-3))
    assert first.pairs == 512 * 100 + 512 * 513 / 2
    assert (second.tokens, second.pairs, second.seconds) == (
        256,
        256 * 257 / 2,
        pytest.approx(0.020, rel=1e-3),
    )


VLLM = (
    "(EngineCore_DP0 pid=7) INFO 11-30 09:00:00 [core.py:400] Iteration({i}): {prompts} context requests, {tokens} "
    "context tokens, {sequences} generation requests, {sequences} generation tokens, iteration elapsed time: "
    "{ms:.2f} ms{usage}"
)
CACHE = "INFO 11-30 08:59:00 [kv_cache_utils.py:1087] GPU KV cache size: 1,000,000 tokens"


def vllm(sequences, ms, prompts=0, tokens=0, usage=""):
    return VLLM.format(i=1, prompts=prompts, tokens=tokens, sequences=sequences, ms=ms, usage=usage)


def test_an_iteration_of_vllm_is_a_step(tmp_path):
    lines = [CACHE, vllm(10, 25.0, usage=", GPU KV cache usage: 4.0%"), vllm(0, 31.0, 2, 600), vllm(0, 20.0)]
    (path := tmp_path / "log").write_text("\n".join(lines))
    decode, prefill = read_steps(path, Beside())
    assert (decode.sequences, decode.context, decode.seconds) == (10, pytest.approx(4000), 0.025)
    assert (prefill.tokens, prefill.pairs, prefill.held) == (600, 600 * 301 / 2, 600)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([vllm(10, 25.0)], "--context"),
        ([vllm(10, 0.03), vllm(10, 25.0)], "--no-async-scheduling"),
        (["nothing of the kind"], "--enable-logging-iteration-details"),
    ],
)
def test_a_log_that_does_not_tell_is_refused_with_what_to_do(tmp_path, lines, said):
    (path := tmp_path / "log").write_text("\n".join(lines))
    code, told = run(path, "--out", tmp_path / "out")
    assert code == 2 and said in told and path.name in told
    assert not (tmp_path / "out").exists()


def test_a_context_may_be_said_of_each_file(tmp_path):
    for name, ms in (("a", 25.0), ("b", 28.0)):
        (tmp_path / name).write_text(vllm(10, ms))
    files = "--context", 1000, tmp_path / "a", "--context", 4000, tmp_path / "b"
    assert run(*files, "--out", tmp_path / "out")["steps"]["decode"]["context"] == [1000, 4000]
    code, said = run(*files, tmp_path / "b", "--out", tmp_path / "out")
    assert code == 2 and "one for each of 3 files; got 2" in said


def test_a_context_may_be_said_beside_the_file(tmp_path):
    (path := tmp_path / "log").write_text(vllm(10, 25.0))
    assert read_steps(path, Beside(context=3000))[0].context == 3000


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b not gzip", b'{"traceEvents": 3}', b"SQLite format 3\0", b"\xff\xfe"]
)
def test_a_broken_file_is_refused_and_not_a_crash(tmp_path, content):
    (path := tmp_path / "trace.json").write_bytes(content)
    with pytest.raises(NoSteps, match=r"trace\.json: expected"):
        read_steps(path, Beside())
