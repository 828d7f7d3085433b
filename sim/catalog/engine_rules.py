"""What a release of a serving engine does by default: chunks, memory, overlap, admission."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal

from sim.catalog.reserve import Reserve

FirstToken = Literal["joined", "stepped"]
DispatchMode = Literal["normal", "low_latency"]
BatchSchedule = Literal["alternating", "staged"]
EXPERTS_KERNELS: Final = ("cutlass", "deepgemm", "trtllm_gen", "triton")
"""Kernels of the routed experts, as the profiles' tables call them."""
WEIGHTS: Final = ("bf16", "fp8", "mxfp4", "nvfp4", "int4")
"""Formats of the routed experts."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One serving engine with its defaults; the keys of `rules` in its file."""

    name: str
    chunk_tokens: Mapping[float, int]
    """New prompt tokens per step, by least GPU memory in bytes; see `chunk_for`."""
    divides_chunk_by_dp: bool
    """Whether those are of all attention-DP ranks of a worker together, or of each."""
    dsa_dense_threshold: int
    """DSA models prefill with masked MHA while the longest KV of the batch is at most this many tokens."""
    index_logits_bytes: float
    """Memory of DSA's index logits: a prompt's queries are scored in chunks that fit. 0: no limit."""
    mixes_prefill_with_decode: bool
    """Whether an aggregated step may hold prompt chunks and decoding sequences together."""
    other_ranks_decode: bool
    """Where it may not, and without drafts: whether the attention-DP ranks that compute no prompt decode in a step."""
    kv_transfer_overlap: Literal["layer", "chunk", "none"]
    """What hides the KV transfer: later layers, later chunks, or nothing."""
    prefill_dispatch: DispatchMode
    decode_dispatch: DispatchMode
    shared_expert_overlap_prefill: bool
    shared_expert_overlap_decode: bool
    two_batch_overlap_prefill: bool
    two_batch_overlap_decode: bool
    two_batch_schedule_prefill: BatchSchedule
    """In which order two half batches take turns, where they do; see `sim.step.overlap`."""
    two_batch_schedule_decode: BatchSchedule
    admission_interval_steps: int
    """Decode steps between looks for new requests."""
    admission_wait_steps: int
    """Steps after which prompts start although not every attention-DP rank has one; 0: they do not wait for that."""
    admission_delays: bool
    """Whether these are SGLang's prefill delayer: they count only while some ranks have a prompt and others none."""
    admission_gather_steps: int
    """Steps that prompts are held once every rank has one."""
    admission_idle_rank_opens: bool
    """Whether a rank without any request ends the wait for a prompt on every rank."""
    batch_wait_steps: int
    """Without attention DP: steps that prompts are held at most, until a step is full enough."""
    batch_wait_fill: float
    """Share of the chunk that is full enough."""
    admission_rest_steps: int
    """Decode steps after a step with prompts before the next one."""
    whole_prompts: bool
    """Whether a step takes no part of a prompt, unless that is larger than the step."""
    admission_growth_tokens: int
    """KV tokens kept free for each running sequence when another one is let in."""
    host_overhead_s: float
    """Per step."""
    decode_pool_host_s: float
    """The same, on top, in a pool that only decodes: the host looks after KV that comes in, on all ranks together."""
    compressed_host_s: float
    """The same, on top, of a model with compressed entries (DeepSeek-V4)."""
    fixed_ttft_aggregated_s: float
    """Part of every TTFT that no kernel explains: HTTP, tokenizer, first scheduling."""
    fixed_ttft_disaggregated_s: float
    """The same with a router and a KV handshake."""
    decode_room_first: bool
    """Disaggregated: whether the decode side keeps room for the whole prompt before its prefill begins."""
    decode_poll_steps: int
    """Decode steps between looks for KV that has come in."""
    decode_last_token_again: bool
    """Whether the decode side computes the prompt's last token again."""
    decode_first_token: FirstToken
    """When the first token leaves for the client: see `sim.serving.handover`."""
    prefill_answers_between_steps: bool
    """Whether the engine's router waits for the prefill side, which answers between two of its steps."""
    handover_relay_s: float
    """From the end of the prefill until the decode side has heard of it."""
    small_op_s: float
    """Per layer and step, beyond the operations that are listed one by one."""
    communication_factor: float
    """Collectives in a running engine over the same collectives measured back to back."""
    prompts_gathered_by: Literal["all_gather", "all_reduce"]
    """How the tokens of all attention-DP ranks reach every rank in a step with prompts, where each does not go to its
    own experts: gathered, and the results scattered; or summed over buffers that are empty but for a rank's own tokens,
    and the results summed."""
    quantised_gather: str
    """Kernels of NVFP4 experts (`any`: all) for which tokens are quantised, then gathered, with prompts or without."""
    whole_batch_experts: str
    """Kernels of the routed experts that, with EP inside a TP group, also run over the rows of other ranks' experts;
    `none`: none are known to."""
    prompt_pool_experts: Mapping[str, float]
    """Generation of GPU and back-end of the routed experts, such as `blackwell deepgemm`, of one format, such as
    `blackwell trtllm_gen fp8`, or of that spread over GPUs (`... fp8 ep`), the last one first -> what they take in a
    pool that only computes prompts, over their table; 1 where it is not named."""
    normal_mode_experts: str
    """Kernels that price FP8 experts which get their tokens all to all in prefill, where no back-end is named."""
    exchange_contention: float
    """DeepEP's normal mode beside a computing half batch, over the same exchange alone."""
    cuda_graphs: bool
    """Whether CUDA graphs launch a whole decode step."""
    launch_s: float
    """What launching one listed operation costs the host without CUDA graphs."""
    compressed_launches: float
    """Times that, of a model with compressed entries, whose listed operations are more kernels each."""
    prefill_graph_tokens: int
    """Largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch; the host launches others."""
    prefill_graph_excludes: tuple[str, ...]
    """Where even those have none; the names are those of `sim.step.pricing.graph_tokens`."""
    draft_host_s: float
    """Host time of a decode step with drafts, on top of `host_overhead_s`, that no kernel hides."""
    memory_flag: Literal["static", "total", "free"]
    """What a scenario's `memory_fraction` means: weights and KV cache, everything, or KV cache of what is left."""
    memory_fraction: float
    """Share of the GPU memory that the engine may use at all."""
    kv_fraction_of_free: float
    """Share of what weights and reserve leave that becomes KV cache."""
    kv_block_tokens: int
    """Tokens of one KV block."""
    window_pool_share: float
    """Tokens of a pool of windows and states for each of the full one, where a model has states of a request; 0: every
    request takes its own out of one pool."""
    state_tokens: int
    """Tokens whose cache takes as much as the windows and states of a request, where one pool is cut into pages of one
    size; 0: they take their own bytes."""
    seat_states: tuple[str, ...]
    """Attention whose states stand for every seat, beside that pool, whether a sequence runs there or not."""
    left_scale_bytes: float
    """Bytes of each scale that the loader leaves beside the kernels' own, where MXFP4 experts are repacked for kernels
    that unpack them (Marlin, on Hopper); 0: it leaves none."""
    hopper_bf16_matrices: tuple[str, ...]
    """Matrices of the attention, whose quantised products need Blackwell: elsewhere they are kept in BF16."""
    rotary_pair_bytes: float
    """Of a table of rotations, of each pair of elements and position of the longest context, where a model has
    compressed entries."""
    draft_weights_counted: bool
    """Whether the cache is drawn up when the MTP module's weights are loaded, too."""
    release: str
    runtime_bytes: float
    """In use before weights are loaded; only where the engine's memory flag does not count it."""
    absorbed_weights: str | None
    """Format of the copies of W^UK and W^UV that the absorbed form of MLA keeps; None: there are none."""
    sharding_all_to_all: Mapping[str, Literal["gpu", "rank", "worker"]]
    """What holds one copy of `shared`, `dense_ffn`, `head` and `embedding`; see `sim.model.sharding`."""
    sharding_gathered: Mapping[str, Literal["gpu", "rank", "worker"]]
    """The same where the ranks' tokens are gathered instead."""
    reserve: Reserve

    def chunk_for(self, memory_bytes: float, ranks: int) -> int:
        """Default chunk of an attention-DP rank, in tokens, on GPUs with that much memory and so many ranks."""
        whole = self.whole_chunk_for(memory_bytes)
        return max(1, whole // ranks) if self.divides_chunk_by_dp else whole

    def whole_chunk_for(self, memory_bytes: float) -> int:
        """The same before any division by ranks, from which engines draw up their reserve."""
        return self.chunk_tokens[max(least for least in self.chunk_tokens if least <= memory_bytes)]


RULES: Final = frozenset(field.name for field in fields(Engine)) - {"name", "release"}
"""Keys of `rules` in an engine's file."""
