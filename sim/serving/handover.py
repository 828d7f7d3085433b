"""How a computed prompt gets from the worker that computed it to the one that generates the answer."""

from dataclasses import dataclass
from typing import Literal

FirstToken = Literal["received", "joined", "stepped"]


@dataclass(frozen=True, slots=True)
class HandoverRules:
    """Habits of an engine's prefill and decode sides, and of the router between them. All off by default.

    In the order of a request's way:

    - `chooses_worker`: the router chooses the decode worker as it sends the request on, whether it has room or not, and
      the request waits in that worker's queue. Otherwise those that wait stand in one queue for all workers.
    - `room_first`: the decode side keeps a seat and KV blocks for the whole prompt before its prefill begins (SGLang's
      `early` allocation); otherwise when the prompt is computed, and until then its KV stays on the prefill side.
    - `relay_s`: from the end of the prefill until the decode side has heard of it, by way of the router.
    - `poll_every_steps`: a decode worker that is busy looks for KV that has come in every so many of its steps.
    - `last_token_again`: the decode side computes the prompt's last token again, so that its first step makes the first
      token of the answer, which the prefill side has made too.
    - `first_token`: when that token leaves for the client: when the KV has been `received`, when the sequence has
      `joined` the decode batch, or after its first step there (`stepped`).
    - `answers_between_steps`: that token, and with it the end, does not leave before the prefill side has seen that the
      KV is gone, which it does between two of its steps (not with `received`).
    """

    chooses_worker: bool = False
    room_first: bool = False
    relay_s: float = 0.0
    poll_every_steps: int = 1
    last_token_again: bool = False
    first_token: FirstToken = "received"
    answers_between_steps: bool = False
