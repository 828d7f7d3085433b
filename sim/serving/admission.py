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


class AdmissionGate:
    """When an aggregated worker looks for new requests, and when it starts their prompts. Counts decode steps."""

    def __init__(self, rules: AdmissionRules) -> None:
        self._every, self._limit = rules.poll_every_steps, rules.wait_all_ranks_steps
        self._polled_from = 0
        self._held_since: int | None = None

    @property
    def every(self) -> int:
        """Decode steps from one look for new requests to the next."""
        return self._every

    @property
    def waits(self) -> bool:
        """Whether prompts may be held until every rank has one."""
        return self._limit > 0

    def restart(self, step: int) -> None:
        """The worker was idle or computed prompts up to `step`: it looks now, and counts from here."""
        self._polled_from = step

    def looks(self, step: int) -> bool:
        """Whether it looks for new requests at the boundary after `step`."""
        return (step - self._polled_from) % self._every == 0

    def steps_to_look(self, step: int) -> int:
        """Decode steps from the boundary after `step` to the next look, at least 1."""
        return self._every - (step - self._polled_from) % self._every

    def opens(self, step: int, ranks_waiting: int, ranks: int) -> bool:
        """Whether waiting prompts may start at the boundary after `step`, while others decode."""
        if not ranks_waiting:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = step
        return (
            not self.waits
            or ranks_waiting == ranks
            or (self._held_since is not None and step - self._held_since >= self._limit)
        )

    def started(self) -> None:
        """Prompts were started: the next ones wait anew."""
        self._held_since = None

    def steps_to_open(self, step: int) -> int | None:
        """Decode steps until the wait is over; None if nothing is held."""
        if not self.waits or self._held_since is None:
            return None
        left = self._held_since + self._limit - step
        return left if left > 0 else None


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
