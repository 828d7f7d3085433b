"""The words of the field, each in a sentence or two: shown where the pointer rests."""

from typing import Final

TERMS: Final = {
    "TTFT": "Time to first token: from the arrival of a request to its first output token at the client, queueing, "
    "prefill and KV transfer included.",
    "TPOT": "Time per output token: (end-to-end time - TTFT) / (output tokens - 1).",
    "interactivity": "Tokens per second that one user sees while the answer runs: 1 / TPOT.",
    "throughput": "Output tokens per second of the whole deployment, or divided by all its GPUs.",
    "goodput": "Requests per second that keep every latency objective.",
    "stable": "Whether the service keeps up with its arrivals. If not, waiting times grow for as long as requests "
    "arrive, and no percentile means anything. 'ends' is work that is over before that can be told, such as a "
    "benchmark: its figures are those of all its requests, from the first arrival to the last answer.",
    "prefill": "Computing a prompt: all its tokens at once, bound by arithmetic.",
    "decode": "Generating an answer: one token per sequence and step, bound by reading weights and cache.",
    "disaggregated": "Prefill and decode run on separate GPUs; the KV cache travels between them.",
    "aggregated": "The same GPUs prefill and decode; a prompt interrupts the answers that run.",
    "KV cache": "What attention keeps of every token so that it is computed once: latents and RoPE keys (MLA), and "
    "index keys with sparse attention (DSA).",
    "DSA": "DeepSeek Sparse Attention (V3.2): an indexer scores all cached tokens cheaply, and attention reads the "
    "best 2,048 of them.",
    "indexer": "The small attention of DSA that scores every cached token by its index key; the sparse core reads the "
    "best.",
    "MLA": "Multi-head Latent Attention: keys and values of all heads are compressed into one latent per token.",
    "TP": "Tensor parallelism: GPUs share every attention head's work. It does not shard the latent cache.",
    "EP": "Expert parallelism: each GPU of the group holds some of the routed experts, and tokens travel to them.",
    "attention DP": "Attention data parallelism: each rank (GPUs / TP) has sequences of its own.",
    "MTP": "Multi-token prediction: the model drafts the next tokens and verifies them in one step. It gains while "
    "steps wait for memory, and loses where they wait for arithmetic.",
    "DSpark": "DeepSeek-V4's drafter of whole blocks: it proposes several tokens in one pass, verified as MTP's are.",
    "accept length": "Tokens that a decode step yields on average: 1, and the drafts that were right.",
    "redundant experts": "Copies of hot experts over the EP group, so that no GPU has to serve one alone.",
    "popularity sigma": "How unevenly tokens choose experts: sigma of a lognormal popularity. 0 is perfectly even, "
    "about 1 is what production shows.",
    "staleness rho": "Correlation of the load that the placement was computed from with the load now; 1 is up to date.",
    "node limit": "Groups of experts that one token may use (4 of 8 in DeepSeek-V3): fewer groups, fewer nodes.",
    "cache hit": "A prompt token whose KV is already cached: it is read instead of computed.",
    "cache miss": "A prompt token that has to be computed.",
    "price of output": "USD per million output tokens: the share of all cost that decode causes, over what it makes.",
    "blended": "USD per million tokens: all cost over all tokens (cached input, computed input, output), in the mix of "
    "the workload.",
    "price tier": "What an hour of a GPU costs, from owning it to renting on demand. Nothing moves a result more.",
    "batch": "Sequences that decode together on one attention-DP rank.",
    "bound": "What an operation waits for: compute (arithmetic), memory (bandwidth), link (network) or launch (the "
    "fixed cost of starting a kernel).",
    "priced by": "Where the seconds came from: measured (at this shape), fitted (between measured shapes), scaled "
    "(from another GPU's measurements), extrapolated (beyond them), analytic (datasheet x default efficiency).",
    "estimate": "Equations for the steady state: every quantity a mean, no queue beyond the running step. Immediate.",
    "simulation": "Every request and step of the scenario, with queues and bursts: percentiles come from here.",
    "roofline": "The most that a GPU can do at an arithmetic intensity (FLOP per byte): bandwidth x intensity, up to "
    "its peak.",
    "held-out error": "Error on measurements that the fit has not seen: whole values of an axis are left out and "
    "predicted.",
    "load": "Arrivals over capacity. Above 100% the backlog grows.",
    "KV transfer": "Sending a prompt's KV cache from the prefill to the decode GPUs.",
    "chunk": "Prompt tokens that a rank computes in one step at most.",
}  # fmt: skip

HEADINGS: Final = {
    "from": "estimate",
    "input, cache hit": "cache hit",
    "input, cache miss": "cache miss",
    "output": "price of output",
    "output tokens/s": "throughput",
    "output tokens/s per GPU": "throughput",
}
"""Headings that do not begin with the term that explains them."""


def meaning(words: str) -> str | None:
    """What a heading or a label says (`TTFT p99, s`), if it or its beginning is a term."""
    named = words.rsplit(",", maxsplit=1)[0]
    for start in (words, named, named.split(" ", maxsplit=1)[0]):
        if found := TERMS.get(HEADINGS.get(start, start)):
            return found
    return None
