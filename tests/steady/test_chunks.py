"""Chunks of prompts, cut by hand and as the simulation cuts them."""

import numpy as np
import pytest

from sim.serving.prompts import PromptQueues
from sim.serving.served_request import ServedRequest
from sim.steady.chunks import cut


def test_prompts_that_share_chunks_by_hand() -> None:
    """6 and 5 new tokens, half as many cached before them, in chunks of 4 as one stream: 4, 2 + 2, 3."""
    chunks = cut(np.array([6.0, 5.0]), 0.5, together=2, budget=4)
    assert chunks.tokens.tolist() == [4, 4, 3]
    # The first: 4 x 3 cached + 1 + 2 + 3 + 4. The second: 2 x 3 + 5 + 6 and 2 x 2.5 + 1 + 2.
    # The third: 3 x 2.5 + 3 + 4 + 5.
    assert chunks.pairs.tolist() == [22, 25, 19.5]
    assert chunks.pairs_alone.tolist() == [10, 14, 12]
    assert chunks.held.tolist() == [7, 9 + 4.5, 7.5]
    assert chunks.longest.tolist() == [7, 9, 7.5]
    assert chunks.several.tolist() == [0, 1, 0]


def test_prompts_apart_by_hand() -> None:
    chunks = cut(np.array([6.0, 5.0]), 0.0, together=1, budget=4)
    assert chunks.tokens.tolist() == [4, 2, 4, 1]
    assert chunks.longest.tolist() == [4, 6, 4, 5]


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_is_cut_as_the_simulation_cuts_it(whole: bool) -> None:
    lengths, queues = np.array([700, 20, 3000, 1, 64, 511, 1200, 300, 212, 12, 500]), PromptQueues(1, whole)
    for i, tokens in enumerate(lengths.tolist()):
        queues.add(ServedRequest(i, tokens, 0, 5), 0)
    chunks = cut(lengths.astype(float), 0.0, together=len(lengths), budget=512, whole=whole)
    for i in range(len(chunks.tokens)):
        planned = queues.plan([512], lambda *_: True)
        assert planned is not None
        [prompts] = planned.prompts
        assert prompts.tokens == chunks.tokens[i]
        assert prompts.context == pytest.approx(chunks.context[i])
        assert prompts.longest == chunks.longest[i]
    assert queues.empty


def test_prompts_that_are_not_divided_by_hand() -> None:
    """6, 3 and 5 new tokens in chunks of 4. As one stream: 4, 2 + 2, 1 + 3, 2. Undivided where they fit: 3 do not fit
    beside the last 2 of 6, and leave 1, which 5 do not fit into."""
    lengths = np.array([6.0, 3.0, 5.0])
    assert cut(lengths, 0.0, together=3, budget=4).tokens.tolist() == [4, 4, 4, 2]
    assert cut(lengths, 0.0, together=3, budget=4, whole=True).tokens.tolist() == [4, 2, 3, 4, 1]
