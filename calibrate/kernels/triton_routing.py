"""Our own Triton kernels around the routed experts: the gate's selection, rows to their experts and back.

Rows are placed by counting: each expert's program scans the pairs twice, once to count its own and once to number them.
"""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from calibrate.kernels.tune import Configurations, launch

GATE_CONFIGURATIONS: Final[Configurations] = ({"num_warps": 1}, {"num_warps": 2}, {"num_warps": 4})
SCAN_CONFIGURATIONS: Final[Configurations] = (
    {"CHUNK": 1024, "num_warps": 4},
    {"CHUNK": 4096, "num_warps": 8},
)
MOVE_CONFIGURATIONS: Final[Configurations] = (
    {"COLUMNS": 1024, "num_warps": 4},
    {"COLUMNS": 2048, "num_warps": 4},
    {"COLUMNS": 512, "num_warps": 2},
)


@triton.jit
def _gate(
    logits, bias, chosen, weights,
    GROUPS: tl.constexpr, EACH: tl.constexpr, KEPT: tl.constexpr, TOP_K: tl.constexpr,
):  # fmt: skip
    """One token: the KEPT groups with the largest sum of their two best biased affinities, the TOP_K best inside."""
    token = tl.program_id(0).to(tl.int64)
    g, e, k = tl.arange(0, GROUPS), tl.arange(0, EACH), tl.arange(0, TOP_K)
    n = tl.arange(0, GROUPS * EACH)
    at = g[:, None] * EACH + e[None, :]
    affinity = 1 / (1 + tl.exp(-tl.load(logits + token * GROUPS * EACH + at)))
    biased = affinity + tl.load(bias + at)
    if KEPT < GROUPS:
        rest = tl.where(e[None, :] == tl.argmax(biased, 1)[:, None], -float("inf"), biased)
        strength = tl.max(biased, 1) + tl.max(rest, 1)
        kept = g < 0
        for _ in tl.static_range(KEPT):
            best = g == tl.argmax(strength, 0)
            kept = kept | best
            strength = tl.where(best, -float("inf"), strength)
        biased = tl.where(kept[:, None], biased, -float("inf"))
    left = tl.reshape(biased, [GROUPS * EACH])
    all_affinities = tl.reshape(affinity, [GROUPS * EACH])
    found = tl.zeros([TOP_K], tl.int32)
    share = tl.zeros([TOP_K], tl.float32)
    for i in tl.static_range(TOP_K):
        expert = tl.argmax(left, 0)
        own = tl.sum(tl.where(n == expert, all_affinities, 0.0), 0)
        found = tl.where(k == i, expert, found)
        share = tl.where(k == i, own, share)
        left = tl.where(n == expert, -float("inf"), left)
    tl.store(chosen + token * TOP_K + k, found)
    tl.store(weights + token * TOP_K + k, share / tl.sum(share, 0))


def select(
    logits: Tensor, bias: Tensor, groups: int, kept: int, chosen: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """logits float32 [t, experts], bias float32 [experts] -> chosen int32 [t, k], weights float32 [t, k] that sum to 1.

    Experts, groups and k are powers of two.
    """

    def run(num_warps: int) -> None:
        _gate[(len(logits),)](
            logits, bias, chosen, weights, GROUPS=groups, EACH=logits.shape[1] // groups, KEPT=kept,
            TOP_K=chosen.shape[1], num_warps=num_warps,
        )  # fmt: skip

    launch(("gate", *logits.shape), GATE_CONFIGURATIONS, run, logits.device)
    return chosen, weights


@triton.jit
def _count(chosen, counts, pairs, CHUNK: tl.constexpr):
    """Pairs of one expert."""
    expert = tl.program_id(0)
    n = tl.arange(0, CHUNK)
    total = tl.zeros([CHUNK], tl.int32)
    for start in range(0, pairs, CHUNK):
        total += (tl.load(chosen + start + n, mask=start + n < pairs, other=-1) == expert).to(tl.int32)
    tl.store(counts + expert, tl.sum(total, 0))


@triton.jit
def _place(chosen, counts, positions, pairs, experts, EXPERTS: tl.constexpr, CHUNK: tl.constexpr):
    """Where the pairs of one expert go: behind those of the experts before it, in their order."""
    expert = tl.program_id(0)
    n, e = tl.arange(0, CHUNK), tl.arange(0, EXPERTS)
    placed = tl.sum(tl.load(counts + e, mask=(e < expert) & (e < experts), other=0), 0)
    for start in range(0, pairs, CHUNK):
        mine = (tl.load(chosen + start + n, mask=start + n < pairs, other=-1) == expert).to(tl.int32)
        tl.store(positions + start + n, placed + tl.cumsum(mine, 0) - 1, mask=mine != 0)
        placed += tl.sum(mine, 0)


@triton.jit
def _spread(x, positions, rows, hidden, TOP_K: tl.constexpr, COLUMNS: tl.constexpr):
    """Copies of one token's columns to all its places."""
    token = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    value = tl.load(x + token * hidden + c, mask=c < hidden)
    for i in tl.static_range(TOP_K):
        place = tl.load(positions + token * TOP_K + i).to(tl.int64)
        tl.store(rows + place * hidden + c, value, mask=c < hidden)


def permute(x: Tensor, chosen: Tensor, counts: Tensor, positions: Tensor, rows: Tensor) -> None:
    """x [t, hidden] and chosen int32 [t, k] -> rows [t k, hidden] sorted by expert, tokens of an expert in order;
    counts int32 [experts]; positions int32 [t, k] of each pair among the rows."""
    pairs, experts, top_k = chosen.numel(), len(counts), chosen.shape[1]

    def scan(CHUNK: int, num_warps: int) -> None:
        _count[(experts,)](chosen, counts, pairs, CHUNK=CHUNK, num_warps=num_warps)
        _place[(experts,)](
            chosen, counts, positions, pairs, experts, EXPERTS=triton.next_power_of_2(experts), CHUNK=CHUNK,
            num_warps=num_warps,
        )  # fmt: skip

    def move(COLUMNS: int, num_warps: int) -> None:
        grid = (len(x), triton.cdiv(x.shape[1], COLUMNS))
        _spread[grid](x, positions, rows, x.shape[1], TOP_K=top_k, COLUMNS=COLUMNS, num_warps=num_warps)

    launch(("scan", pairs, experts), SCAN_CONFIGURATIONS, scan, x.device)
    launch(("spread", *x.shape, top_k), MOVE_CONFIGURATIONS, move, x.device)


@triton.jit
def _sum(rows, positions, weights, output, hidden, TOP_K: tl.constexpr, COLUMNS: tl.constexpr):
    """The weighted sum of one token's rows, over a block of columns."""
    token = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for i in tl.static_range(TOP_K):
        place = tl.load(positions + token * TOP_K + i).to(tl.int64)
        row = tl.load(rows + place * hidden + c, mask=c < hidden, other=0.0)
        total += tl.load(weights + token * TOP_K + i) * row.to(tl.float32)
    tl.store(output + token * hidden + c, total.to(output.dtype.element_ty), mask=c < hidden)


def finalise(rows: Tensor, positions: Tensor, weights: Tensor, output: Tensor) -> Tensor:
    """rows [t k, hidden], positions int32 [t, k], weights float32 [t, k] -> output [t, hidden]."""

    def run(COLUMNS: int, num_warps: int) -> None:
        grid = (len(output), triton.cdiv(output.shape[1], COLUMNS))
        _sum[grid](
            rows, positions, weights, output, output.shape[1], TOP_K=positions.shape[1], COLUMNS=COLUMNS,
            num_warps=num_warps,
        )  # fmt: skip

    launch(("finalise", *output.shape, positions.shape[1]), MOVE_CONFIGURATIONS, run, output.device)
    return output
