"""Whatever is pasted, the answer is a scenario that loads, or an error that says what is wrong."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.catalog import UnknownName
from sim.launch.entries import MODULES, started
from sim.launch.read import read_launch
from sim.launch.shell import read_script
from sim.launch.table import table
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

STARTS = {
    "vllm": "vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8",
    "sglang": "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8",
    "trtllm": "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8",
}
VALUES = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "8",
        "16",
        "3.5",
        "99999999999999999999",
        "1k",
        "inf",
        "nan",
        "x",
        "true",
        "null",
    ),
    *("{}", "[]", '{"a":1}', '"', "'", "$X", "(", ";", "fp8", "deepep", "mtp", "EAGLE", "prefill", "CONTEXT"),
    *('{"method":"mtp","num_speculative_tokens":"a"}', '{"kv_role":[]}', '{"num_slots":"x"}'),
    '{"num_redundant_experts":"q"}',
)
engines = st.sampled_from(list(STARTS))


def flags(engine: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    names = [
        flag.name for flag in table(engine).flags.values() if flag.fate == "setting" and flag.name != "model"
    ]
    return st.lists(st.tuples(st.sampled_from(names), st.sampled_from(VALUES)), max_size=6)


@pytest.mark.parametrize("engine", list(STARTS))
def test_an_empty_word_is_no_command(engine: str) -> None:
    assert not any("were not read" in note for note in read_launch(f"{STARTS[engine]}\n''\n", "b200").notes)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), engine=engines, junk=st.text("{}[]()'\"\\$`#;|&<>= \n\t-a0", max_size=6))
def test_no_text_breaks_the_reader(data: st.DataObject, engine: str, junk: str) -> None:
    text, options = STARTS[engine], ""
    for name, value in data.draw(flags(engine)):
        if name.startswith("-"):
            text += f" {name} {value}"
        else:
            *sections, key = name.split(".")
            options += "".join(f"{s}: {{" for s in sections) + f"{key}: {value}" + "}" * len(sections) + "\n"
    if options:
        text = f"cat > o.yml <<'EOF'\n{options}EOF\n{text} --config o.yml"
    text += f" {junk}"
    try:
        launch = read_launch(text, "b200")
    except (ScenarioError, UnknownName) as error:
        assert str(error)
    else:
        assert parse(launch.text).scenario.deployment.pools()


DOUBLED = {
    "words": ["A=aaaaaaaaaa", *['A="$A$A"'] * 40, "vllm serve deepseek-ai/DeepSeek-V3.2 $A"],
    "pieces": ["A=aaaaaaaaaa", *["A=$A$A"] * 40, "vllm serve deepseek-ai/DeepSeek-V3.2 $A"],
    "appended": ["A=aaaaaaaaaa", *["A+=$A"] * 40, "vllm serve deepseek-ai/DeepSeek-V3.2 $A"],
    "arrays": [
        "A=(a b)",
        *['A=("${A[@]}" "${A[@]}")'] * 40,
        'vllm serve deepseek-ai/DeepSeek-V3.2 "${A[@]}"',
    ],
    "grown arrays": ["A=(a b)", *['A+=("${A[@]}")'] * 40, 'vllm serve deepseek-ai/DeepSeek-V3.2 "${A[@]}"'],
}


@pytest.mark.parametrize("kind", DOUBLED)
def test_variables_that_double_forty_times_are_refused_before_they_fill_the_memory(kind: str) -> None:
    """Ten characters become 10 x 2^40."""
    with pytest.raises(ScenarioError, match="longer than 131,072 characters"):
        read_launch("\n".join(DOUBLED[kind]), "h200")


def test_a_long_word_takes_no_longer_for_each_of_its_characters() -> None:
    """16 times as many take 16 times as long, not 256 times as when the word is put together for each of them."""

    def seconds(characters: int) -> float:
        start = process_time()
        assert read_launch(STARTS["vllm"] + " --host " + "a" * characters, "h200").text
        return process_time() - start

    seconds(10)
    assert seconds(80_000) < 64 * (seconds(5_000) + 0.01)


@pytest.mark.parametrize("module", [*MODULES, "dynamo.frontend"])
def test_every_module_that_starts_a_server_is_found_in_another_shell_s_text(module: str) -> None:
    text = f"bash -c 'python3 -m {module} --model x'"
    (statement,) = read_script(text, "run.sh").statements
    (inside,) = started(statement, text)
    assert inside.words[0].text == "python3"
