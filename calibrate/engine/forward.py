"""A step of the model on the device: tokens of several sequences in, the next token of each out; and drafts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear

from calibrate.engine.cache import LatentCache
from calibrate.engine.layers import MOST_ABSORBED, Batch, Group, decoder_layer, norm
from calibrate.engine.weights import Module, Weights


@dataclass
class Context:
    """What a sequence holds on the device."""

    table: list[int] = field(default_factory=list)
    """Its blocks."""
    cached: int = 0
    """Tokens whose entries the main model's cache has for good."""


@dataclass(frozen=True)
class Run:
    """Tokens of one sequence for one step, behind what it has cached."""

    context: Context
    tokens: Sequence[int]


class Runner:
    """Weights and cache on one device. All answers are greedy: the token with the largest logit."""

    def __init__(self, weights: Weights, blocks: int, block_tokens: int) -> None:
        self.weights, self.model = weights, weights.model
        where = weights.embedding
        self.device = where.device
        self.cache = LatentCache(self.model, blocks, block_tokens, where.device, where.dtype)

    def step(self, runs: Sequence[Run]) -> tuple[list[list[int]], Tensor]:
        """Next token after every token of every run, and the last hidden states [t, hidden].

        Entries are written for all of them; a context counts those that turn out right itself (`Context.cached`).
        """
        batch = self._batch(runs, [run.context.cached for run in runs])
        x = self._embed(runs)
        for index, layer in enumerate(self.weights.layers):
            x = decoder_layer(layer, index, self.model, x, batch, self.cache)
        return self._tokens(norm(x, self.weights.norm), runs), x

    def draft(
        self, runs: Sequence[Run], starts: Sequence[int], hidden: Tensor, count: int
    ) -> list[list[int]]:
        """`count` drafts behind each run, by the MTP module.

        A run's tokens are here those that follow each of its positions, from `starts` on; `hidden` [t, hidden] is the
        main model's state at these. Each later draft takes the module's own state and the draft before; what it writes
        into the cache lies beyond the run, where the next one overwrites it.
        """
        module = self.weights.module
        assert module is not None
        first, hidden = self._module(module, runs, starts, hidden)
        drafts = [[tokens[-1]] for tokens in first]
        ends = torch.tensor([len(run.tokens) for run in runs]).cumsum(0) - 1
        hidden = hidden[ends.to(hidden.device)]
        behind = [start + len(run.tokens) for start, run in zip(starts, runs, strict=True)]
        for number in range(1, count):
            later = [Run(run.context, [found[-1]]) for run, found in zip(runs, drafts, strict=True)]
            tokens, hidden = self._module(module, later, [b + number - 1 for b in behind], hidden)
            for found, token in zip(drafts, tokens, strict=True):
                found.append(token[-1])
        return drafts

    def _module(
        self, module: Module, runs: Sequence[Run], starts: Sequence[int], hidden: Tensor
    ) -> tuple[list[list[int]], Tensor]:
        batch = self._batch(runs, starts)
        both = [norm(hidden, module.hidden_norm), norm(self._embed(runs), module.embedding_norm)]
        x = linear(torch.cat(both, -1), module.project)
        x = decoder_layer(module.layer, self.model.layers, self.model, x, batch, self.cache)
        return self._tokens(norm(x, module.norm), runs), x

    def _batch(self, runs: Sequence[Run], starts: Sequence[int]) -> Batch:
        """Places and masks of a step; gives the sequences the blocks that they lack."""
        places, alike, row = [], defaultdict(list), 0
        for number, (run, start) in enumerate(zip(runs, starts, strict=True)):
            end = start + len(run.tokens)
            self.cache.extend(run.context.table, end)
            places.append(self.cache.places(run.context.table, 0, end))
            # Many tokens of a sequence attend alone: padding them would cost more than it saves.
            key = len(run.tokens) if len(run.tokens) <= MOST_ABSORBED else -number - 1
            alike[key].append((row, start, len(run.tokens), places[-1]))
            row += len(run.tokens)
        written = [p[start:] for p, start in zip(places, starts, strict=True)]
        positions = [torch.arange(s, s + len(r.tokens)) for s, r in zip(starts, runs, strict=True)]
        groups = tuple(_group(members, self.device) for members in alike.values())
        return Batch(torch.cat(positions).to(self.device), torch.cat(written).to(self.device), groups)

    def _embed(self, runs: Sequence[Run]) -> Tensor:
        tokens = [token for run in runs for token in run.tokens]
        return self.weights.embedding[torch.tensor(tokens, device=self.device)]

    def _tokens(self, x: Tensor, runs: Sequence[Run]) -> list[list[int]]:
        best, found, row = linear(x, self.weights.head).argmax(-1).tolist(), [], 0
        for run in runs:
            found.append(best[row : row + len(run.tokens)])
            row += len(run.tokens)
        return found


def _group(members: Sequence[tuple[int, int, int, Tensor]], device: torch.device) -> Group:
    """(first row, tokens before, new tokens, places) of each sequence -> their group."""
    new, longest = members[0][2], max(len(places) for *_, places in members)
    rows = torch.stack([torch.arange(row, row + new) for row, *_ in members])
    padded = torch.stack([torch.cat([p, p[:1].expand(longest - len(p))]) for *_, p in members])
    seen = torch.tensor([start for _, start, _, _ in members])[:, None] + torch.arange(1, new + 1)
    mask = torch.arange(longest) < seen[:, :, None]
    return Group(rows.to(device), padded.to(device), mask.to(device))
