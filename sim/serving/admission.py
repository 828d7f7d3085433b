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
    """An aggregated worker that decodes starts prompts when every rank has one, and every so many steps
    (TensorRT-LLM: attention_dp_config.timeout_iters). 0: at once. See `sim.serving.prompt_gate`."""
    gather_prompts_steps: int = 0
    """Steps that it waits for more when every rank has one (attention_dp_config.batching_wait_iters)."""
    idle_rank_opens: bool = True
    """Whether a rank without any request ends the wait, too."""
    delay_prompts_steps: int = 0
    """With several ranks: steps in which no new prompt starts while some ranks have one and others none, less one
    (SGLang: prefill_delayer_max_delay_passes). See `sim.serving.prompt_gate.PromptDelay`."""
    batch_wait_steps: int = 0
    """Steps that a worker of one rank holds prompts at most (batch_wait_timeout_iters)."""
    batch_wait_tokens: float = 0.0
    """Tokens of a step with which they start before that (batch_wait_max_tokens_ratio x max_num_tokens)."""
    rest_after_prompts_steps: int = 0
    """Decode steps after a step with prompts before the next one (SGLang: prefill_decode_interval)."""
    other_ranks_decode: bool = False
    """In a step with prompts of some attention-DP ranks, the others decode, and only those wait (SGLang without
    drafts). Off: all wait, unless prompts ride along."""
    tokens_per_sequence: int = 1
    """Tokens of a decoding sequence in a step: itself and its drafts."""
    growth_reserve_tokens: int = 0
    """KV tokens that must stay free for each sequence already on the rank when another one is let in
    (SGLang: num_reserved_decode_tokens). 0: only what is held counts."""

    @property
    def held_steps(self) -> int:
        """Steps for which prompts are held at most until every rank has one."""
        return self.wait_all_ranks_steps or self.delay_prompts_steps


class AdmissionGate:
    """When an aggregated worker looks for new requests. Counts decode steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        """Decode steps from one look for new requests to the next."""
        self._polled_from = 0

    def restart(self, step: int) -> None:
        """The worker was idle or computed prompts up to `step`: it looks now, and counts from here."""
        self._polled_from = step

    def looks(self, step: int) -> bool:
        """Whether it looks for new requests at the boundary after `step`."""
        return (step - self._polled_from) % self.every == 0

    def steps_to_look(self, step: int) -> int:
        """Decode steps from the boundary after `step` to the next look, at least 1."""
        return self.every - (step - self._polled_from) % self.every


class Refusals:
    """For how long the next prompt of each rank has found no seat or no KV blocks, added up."""

    __slots__ = (
        "_before", "_since", "any",
    )  # fmt: skip

    def __init__(self, ranks: int) -> None:
        self._since: list[float | None] = [None] * ranks
        self._before = [0.0] * ranks
        self.any = False
        """Whether there ever was one."""

    def refuses(self, rank: int) -> bool:
        """Whether there was no room for it the last time."""
        return self._since[rank] is not None

    def refuse(self, rank: int, now: float) -> None:
        """There is no room for it."""
        self.any = True
        if self._since[rank] is None:
            self._since[rank] = now

    def admit(self, rank: int, now: float) -> float:
        """There is; the seconds until now."""
        if self._since[rank] is not None:
            self._before[rank] = self.seconds(rank, now)
            self._since[rank] = None
        return self._before[rank]

    def seconds(self, rank: int, now: float) -> float:
        """Seconds until now."""
        since = self._since[rank]
        return self._before[rank] + (0.0 if since is None else now - since)
