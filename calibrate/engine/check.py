"""Whether the engine answers on a device as it does on the CPU: for `make gpu-check`."""

from dataclasses import replace

import torch

from calibrate.engine.forward import Runner
from calibrate.engine.serving import Engine, Limits, Request
from calibrate.engine.weights import random_weights, reduced
from sim.catalog import model

PROMPTS = ((700, 12), (3, 20), (90, 8))
"""Tokens of prompt and answer; the first is longer than a chunk and than what a query attends to."""


def answers(device: torch.device) -> list[list[int]]:
    """Greedy answers of a tiny V3.2 in float64, with drafts and chunks."""
    small = reduced(model("deepseek-v3.2"), layers=3, hidden=256, heads=8, experts=16, vocab=200)
    tiny = replace(small, index_topk=64)
    # Random numbers differ by device: they are made on the CPU.
    weights = random_weights(tiny, seed=1, dtype=torch.float64).to(device)
    engine = Engine(Runner(weights, blocks=64, block_tokens=16), Limits(8, 300, 256, drafts=1))
    requests = [
        Request(0.0, [(7 * i) % tiny.vocab for i in range(length)], count) for length, count in PROMPTS
    ]
    return [answer.tokens for answer in engine.serve(requests)]


def same_as_on_the_cpu(device: torch.device) -> bool:
    """Whether the answers are the same token for token."""
    return answers(device) == answers(torch.device("cpu"))
