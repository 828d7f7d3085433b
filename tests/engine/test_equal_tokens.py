"""The engine's greedy answers are the same token for token: with the latent cache as without, with blocks as without,
with chunks as without, among others as alone, with MTP verification as without.

Everything in float64, so that only mistakes can change a token. The reference has no cache: it computes every sequence
anew from its first token, MHA over expanded keys and values, one token's experts after the other.
"""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace
from math import sqrt

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from torch.nn.functional import linear, rms_norm

from calibrate.engine import check
from calibrate.engine.forward import Runner
from calibrate.engine.layers import rotate
from calibrate.engine.serving import Engine, Limits, Request
from calibrate.engine.weights import Experts, random_weights, reduced
from calibrate.kernels.dsa_index import index_scores
from calibrate.kernels.mla import expanded_attention
from calibrate.kernels.moe import gated_ffn
from calibrate.kernels.routing import select_experts
from sim.catalog import model

TINY = {"layers": 3, "hidden": 64, "heads": 4, "experts": 8, "vocab": 12}
MODELS = {
    "MLA": reduced(model("deepseek-v3"), **TINY),
    "DSA": replace(reduced(model("deepseek-v3.2"), **TINY), index_topk=9),
    "no query latent": replace(reduced(model("deepseek-v2-lite"), **TINY), nextn=0),
}
torch.set_num_threads(1)  # two threads for matrices of 64 x 64 cost more than they save
LENGTHS = ((23, 6), (5, 12), (30, 4), (1, 8), (17, 1))
"""Tokens of prompt and answer."""


@pytest.fixture(scope="module", params=MODELS)
def weights(request):
    return random_weights(MODELS[request.param], seed=3, dtype=torch.float64)


def prompts(vocab):
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randint(vocab, (length,), generator=generator).tolist(), answer) for length, answer in LENGTHS
    ]


def norm(x, weight):
    return rms_norm(x, weight.shape, weight, 1e-6)


def plain_attention(weights, m, x):
    at = torch.arange(len(x))
    latent_query = norm(linear(x, weights.q_a), weights.q_norm) if m.q_lora_rank else x
    q = linear(latent_query, weights.q_b).view(len(x), m.heads, -1)
    q = torch.cat([q[..., : m.qk_nope], rotate(q[..., m.qk_nope :], at)], -1)
    entry = linear(x, weights.kv_a)
    latent = norm(entry[:, : m.kv_lora_rank], weights.kv_norm)
    rope = rotate(entry[:, m.kv_lora_rank :], at)
    if weights.indexer is None:
        return linear(expanded_attention(q, latent, rope, weights.kv_b, m.qk_nope).flatten(1), weights.out)
    turned = min(m.qk_rope, m.index_head_dim)
    iq = linear(latent_query, weights.indexer.query).view(len(x), m.index_heads, -1)
    iq = torch.cat([rotate(iq[..., :turned], at), iq[..., turned:]], -1)
    key = linear(x, weights.indexer.key)
    key = torch.cat([rotate(key[:, :turned], at), key[:, turned:]], -1)
    scores = index_scores(iq, linear(x, weights.indexer.weight), key)
    rows = []
    for t in range(len(x)):
        kept = scores[t, : t + 1].topk(min(m.index_topk, t + 1)).indices
        k = torch.einsum("lc,hnc->lhn", latent[kept], weights.kv_b[:, : m.qk_nope])
        v = torch.einsum("lc,hvc->lhv", latent[kept], weights.kv_b[:, m.qk_nope :])
        k = torch.cat([k, rope[kept][:, None].expand(-1, m.heads, -1)], -1)
        share = (torch.einsum("hd,lhd->hl", q[t], k) / sqrt(q.shape[-1])).softmax(-1)
        rows.append(torch.einsum("hl,lhv->hv", share, v))
    return linear(torch.stack(rows).flatten(1), weights.out)


def plain_ffn(ffn, m, x):
    if not isinstance(ffn, Experts):
        return gated_ffn(x, ffn.up, ffn.down)
    rows = []
    for token in x:
        chosen, share = select_experts(linear(token[None], ffn.gate), ffn.bias, m)
        rows.append(
            sum(
                w * gated_ffn(token, ffn.up[e], ffn.down[e]) for e, w in zip(chosen[0], share[0], strict=True)
            )
        )
    total = torch.stack(rows)
    return total + gated_ffn(x, ffn.shared.up, ffn.shared.down) if ffn.shared else total


def plain_answer(weights, prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        x = weights.embedding[torch.tensor(tokens)]
        for layer in weights.layers:
            x = x + plain_attention(layer.attention, weights.model, norm(x, layer.attention.norm))
            x = x + plain_ffn(layer.ffn, weights.model, norm(x, layer.norm))
        tokens.append(int(linear(norm(x[-1:], weights.norm), weights.head).argmax()))
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def plain(weights):
    """The reference's answers, and that they are worth comparing: not one token again and again."""
    found = [plain_answer(weights, *asked) for asked in prompts(weights.model.vocab)]
    assert len({token for answer in found for token in answer}) > 2
    return found


def served(weights, limits, blocks=64, block_tokens=4, alone=False):
    runner = Runner(weights, blocks, block_tokens)
    asked = [Request(0.0, prompt, answer) for prompt, answer in prompts(weights.model.vocab)]
    if alone:
        found = [Engine(runner, limits).serve([request])[0] for request in asked]
    else:
        found = Engine(runner, limits).serve(asked)
    assert len(runner.cache.free) == blocks  # all given back
    return found


def tokens(answers):
    return [answer.tokens for answer in answers]


WHOLE = Limits(sequences=8, tokens=1000, chunk=1000)


def test_with_the_latent_cache_as_without(weights, plain):
    assert tokens(served(weights, WHOLE, alone=True)) == plain


def test_among_others_as_alone(weights, plain):
    assert tokens(served(weights, WHOLE)) == plain
    assert tokens(served(weights, replace(WHOLE, sequences=2))) == plain


@pytest.mark.parametrize(("blocks", "block_tokens"), [(6, 64), (200, 1), (40, 7)])
def test_with_blocks_as_without(blocks, block_tokens, weights, plain):
    """64 tokens hold any of the sequences: a block each is no blocks at all."""
    assert tokens(served(weights, WHOLE, blocks, block_tokens)) == plain


@pytest.mark.parametrize(("chunk", "step"), [(1, 8), (7, 16), (16, 1000)])
def test_with_chunked_prefill_as_without(chunk, step, weights, plain):
    assert tokens(served(weights, Limits(8, step, chunk))) == plain


@pytest.mark.parametrize("drafts", [1, 2, 3])
def test_with_mtp_verification_as_without(drafts, weights, plain):
    if weights.module is None:
        with pytest.raises(ValueError, match="has no MTP module"):
            Engine(Runner(weights, 8, 4), Limits(drafts=drafts))
        return
    for limits in (replace(WHOLE, drafts=drafts), Limits(3, 16, 5, drafts)):
        found = served(weights, limits)
        assert tokens(found) == plain
        assert sum(answer.verified for answer in found) > 10
        assert sum(answer.accepted for answer in found) > 0  # by chance, of so small a vocabulary


@pytest.mark.parametrize("right", [0, 1, 2])
def test_drafts_that_are_right_are_taken_and_wrong_ones_cost_no_token(right, weights, plain):
    """An oracle drafts so many right tokens and then wrong ones: every step goes on by one more than are right."""
    if weights.module is None:
        pytest.skip("no MTP module")
    vocab, runner = weights.model.vocab, Runner(weights, 64, 4)
    whole = {}

    def oracle(runs, starts, hidden, count):
        drafts = []
        for run, start in zip(runs, starts, strict=True):
            # The run's last token is the answer's newest; it follows position start + len - 1.
            coming = [*whole[id(run.context)], *[0] * count][start + len(run.tokens) + 1 :][:count]
            drafts.append([t if i < right else (t + 1) % vocab for i, t in enumerate(coming)])
        return drafts

    runner.draft = oracle
    engine = Engine(runner, replace(WHOLE, drafts=2))
    found = [engine.submit(Request(0.0, prompt, answer)) for prompt, answer in prompts(vocab)]
    for answer, expected in zip(found, plain, strict=True):
        whole[id(answer.context)] = [*answer.request.prompt, *expected]
    while engine.waiting or engine.running:
        engine.step()
    assert tokens(found) == plain
    # The longest answer has 12 tokens, the first of which comes with its prompt.
    assert sum(step.decoding > 0 for step in engine.steps) == -(-11 // (1 + right))
    assert all(answer.accepted <= right * answer.verified for answer in found)


def test_the_check_of_a_gpu_compares_answers_and_moves_all_weights():
    cpu = torch.device("cpu")
    assert check.same_as_on_the_cpu(cpu)
    moved = random_weights(MODELS["DSA"]).to(torch.device("meta"))
    places = {
        moved.head.device.type,
        moved.layers[2].ffn.shared.up.device.type,
        moved.module.project.device.type,
    }
    assert places == {"meta"}
    assert moved.layers[0].attention.indexer.key.is_meta and moved.model is MODELS["DSA"]
