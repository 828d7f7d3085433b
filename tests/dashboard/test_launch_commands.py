"""Launch commands on the What-if page: one that is pasted becomes the view's scenario, and every view has its own."""

import pytest
import yaml
from opened_pages import opened, sound
from streamlit.testing.v1 import AppTest

from dashboard.settings import DEFAULTS, decode, encode, scenario_of, settings_of
from sim.launch.read import read_launch
from sim.scenario.loading import parse

MODEL = "deepseek-ai/DeepSeek-V3.2"
SGLANG = f"python3 -m sglang.launch_server --model-path {MODEL} --tp-size 8 --dp-size 8 --enable-dp-attention"
COMMANDS = [
    SGLANG,
    "vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --speculative-config {\"method\":\"mtp\",\"num_speculative_tokens\":1}",
    "vllm serve deepseek-ai/DeepSeek-R1-0528 -tp 1 -dp 8 --enable-expert-parallel --max-num-seqs 64",
    "trtllm-serve deepseek-ai/DeepSeek-V3.2 --tp_size 8 --ep_size 4 --max_batch_size 256",
    "VLLM_SPARSE_INDEXER_MAX_LOGITS_MB=256 vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --max-num-seqs 12",
]  # fmt: skip
DSPARK = (
    "sglang serve --model-path deepseek-ai/DeepSeek-V4-Pro-0813 --tp 8 --dp 8 --enable-dp-attention "
    "--moe-a2a-backend megamoe --speculative-algorithm DSPARK --enable-deepseek-v4-fp4-indexer"
)


def pasted(text: str, **query: str) -> AppTest:
    app = opened("what_if", **query)
    app.text_area(key="launch").set_value(text)
    return sound(app.button(key="read").click().run())


def shown(app: AppTest) -> dict[str, object]:
    return yaml.safe_load(next(code.value for code in app.code if code.value.startswith("model:")))


@pytest.mark.parametrize(("command", "gpu"), [*((command, "h200") for command in COMMANDS), (DSPARK, "b300")])
def test_settings_spell_the_deployment_of_a_command(command: str, gpu: str) -> None:
    """All of it: layout, seats, chunk, memory, exchange, formats, drafts; through the address of the page too."""
    launch = read_launch(command, gpu)
    settings = {**DEFAULTS, **settings_of(launch.scenario)}
    assert decode(encode(settings)) == settings
    want = parse(launch.text).scenario
    got = parse(yaml.safe_dump(scenario_of(settings))).scenario
    for key in (
        "model",
        "gpu",
        "engine",
        "deployment",
        "precision",
        "speculation",
        "prefix_cache",
        "scheduling",
        "indexer",
    ):
        assert getattr(got, key) == getattr(want, key), key


def test_a_pasted_command_becomes_the_view() -> None:
    app = pasted(SGLANG + " --mem-fraction-static 0.85 --port 30000", r="3.0")
    scenario = shown(app)
    serve = scenario["deployment"]["serve"]  # type: ignore[index]
    assert (serve["gpus"], serve.get("tp", 1), serve["chunk_tokens"]) == (8, 1, 1024)
    assert serve["memory_fraction"] == 0.85 and scenario["workload"]["arrivals"]["poisson"] == {
        "rate_per_s": 3.0
    }  # type: ignore[index]
    assert "Every flag that matters" in app.success[0].value
    # The address holds it: a second window shows the same.
    again = sound(opened("what_if", **dict(app.query_params)))
    assert shown(again) == scenario


def test_the_drafter_is_called_by_its_name() -> None:
    app = pasted(DSPARK, g="b300_sxm")
    scenario = shown(app)
    assert scenario["speculation"]["method"] == "dspark"  # type: ignore[index]
    assert scenario["deployment"]["serve"]["moe_backend"] == "mega_moe"  # type: ignore[index]
    assert "Drafts (DSpark)" in {one.label for one in app.number_input}
    commands = next(code.value for code in app.code if "launch_server" in code.value)
    assert "deepseek-ai/DeepSeek-V4-Pro-0813" in commands and "--moe-a2a-backend megamoe" in commands
    assert "Drafts (MTP)" in {one.label for one in sound(opened("what_if")).number_input}


def test_what_was_not_understood_is_said() -> None:
    app = pasted("vllm serve deepseek-ai/DeepSeek-R1 -tp 8 --no-such-flag 3 -pp 2")
    assert "no\\-such\\-flag" in app.warning[0].value and "pipeline" in app.warning[0].value


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (SGLANG.replace("--dp-size 8", "--dp-size 3"), "command:1:84: --dp-size 3 does not divide 8"),
        ("ls -l", "command:1"),
        ("", "command"),
        (
            "trtllm-serve deepseek-ai/DeepSeek-V3.2 --extra_llm_api_options /etc/hostname",
            "no file is read here",
        ),
        ("vllm serve /etc -tp 8", "model"),
    ],
)
def test_a_broken_command_is_told_with_its_place_and_changes_nothing(command: str, says: str) -> None:
    before = shown(opened("what_if"))
    app = pasted(command)
    assert "cannot be read" in app.error[0].value and says in app.code[0].value
    assert shown(app) == before


def test_keys_that_name_files_are_no_other_keys() -> None:
    for text in (
        "gpu=/etc/x.yaml",
        "workload.trace=/etc/passwd",
        "deployment.decode.experts.file=/etc/passwd",
        "a=1",
        "x",
    ):
        assert scenario_of({**DEFAULTS, "z": text}) == scenario_of(DEFAULTS)


def test_every_view_has_its_launch_commands() -> None:
    app = sound(opened("what_if", k="joint", e="vllm", sg="8", st="8", ep="False", sw="1"))
    command = app.code[-1].value
    assert command.count("vllm serve deepseek-ai/DeepSeek-V3.2") == 1 and "-tp 8" in command
    assert read_launch(command, "h200").scenario["deployment"]["serve"]["tp"] == 8
    sound(app.segmented_control(key="written_for").set_value("sglang").run())
    assert "sglang.launch_server" in app.code[-1].value
    separate = sound(opened("what_if"))
    assert separate.code[-1].value.count("--disaggregation-mode") >= 2


def test_a_layout_that_an_engine_does_not_have_is_told() -> None:
    app = sound(opened("what_if", k="joint", sg="8", st="4", ep="False", sw="1"))
    sound(app.segmented_control(key="written_for").set_value("trtllm").run())
    assert app.error and "cannot be started so" in app.error[0].value
