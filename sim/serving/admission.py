"""When an engine lets requests in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdmissionRules:
    """Habits of an engine's scheduler that delay requests. All off by default."""

    ingress_s: float = 0.0
    """Fixed time between a request's arrival and the queue of its worker (router, tokeniser)."""
    poll_every_steps: int = 1
    """While it only decodes, an aggregated worker looks for new requests every so many steps
    (SGLang: scheduler_recv_interval)."""
    wait_all_ranks_steps: int = 0
    """An aggregated worker that decodes starts prompts when every rank has one, or after so many steps
    (TensorRT-LLM: attention_dp_config.timeout_iters). 0: at once."""
    growth_reserve_tokens: int = 0
    """KV tokens that must stay free for each sequence already on the rank when another one is let in
    (SGLang: num_reserved_decode_tokens). 0: only what is held counts."""
