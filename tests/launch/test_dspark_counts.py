"""DSpark's counts of drafts in launch commands: what the engines take, and what they refuse."""

import pytest
from launches import launch

from sim.scenario.errors import ScenarioError

ONE_NODE = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 "
DSPARK = "sglang serve --model-path deepseek-ai/DeepSeek-V4-Pro-0813 --tp 8 --speculative-algorithm DSPARK "


def test_blocks_longer_than_any_published_are_cut_and_told() -> None:
    """6 drafts are the longest block whose accept length is published for V4-Pro."""
    text = (
        "sglang serve --model-path deepseek-ai/DeepSeek-V4-Pro --tp 8 "
        "--speculative-algorithm DSPARK --speculative-dspark-block-size 8"
    )
    found = launch(text, "b200")
    assert found.scenario["speculation"]["draft_tokens"] == 6
    assert any("6 drafts are priced" in told.why for told in found.not_modelled)


@pytest.mark.parametrize(
    ("more", "drafts"),
    [
        ("", 5),
        ("--speculative-num-draft-tokens 6", 5),  # the checkpoint's block, and the token before it
        ("--speculative-dspark-block-size 3 --speculative-num-draft-tokens 4", 3),
    ],
)
def test_dspark_verifies_its_block_and_one_token_more(more: str, drafts: int) -> None:
    assert launch(DSPARK + more, "b200").scenario["speculation"]["draft_tokens"] == drafts


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("block", [None, 2])
def test_any_other_count_is_refused_as_sglang_refuses_it(tokens: int, block: int | None) -> None:
    size = f"--speculative-dspark-block-size {block} " if block else ""
    if tokens == (block or 5) + 1:
        return
    with pytest.raises(
        ScenarioError, match=f"--speculative-num-draft-tokens {tokens}: .* takes only"
    ) as caught:
        launch(f"{DSPARK}{size}--speculative-num-draft-tokens {tokens}", "b200")
    assert f"takes only {(block or 5) + 1}, one more than" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (DSPARK + "--speculative-num-steps 5", "--speculative-num-steps 5"),
        (DSPARK + "--speculative-eagle-topk 2", "--speculative-eagle-topk 2"),
        (ONE_NODE + "--speculative-num-steps 3", "--speculative-num-steps 3"),
        (
            ONE_NODE + "--speculative-algorithm EAGLE --speculative-dspark-block-size 5",
            "--speculative-dspark",
        ),
    ],
)
def test_counts_of_drafts_that_do_nothing_are_told(text: str, flag: str) -> None:
    assert any(told.flag.startswith(flag) for told in launch(text, "b200").not_modelled)


@pytest.mark.parametrize("count", ['"five"', "0", "-1", "2.5"])
def test_a_block_of_drafts_is_a_whole_number_from_1(count: str) -> None:
    text = f"""vllm serve deepseek-ai/DeepSeek-V4-Pro-0813 -tp 8 --speculative-config
'{{"method":"dspark","num_speculative_tokens":{count}}}'""".replace("\n", " ")
    with pytest.raises(ScenarioError, match="num_speculative_tokens takes a whole number from 1"):
        launch(text, "b200")
