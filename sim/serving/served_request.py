"""A request while it is being served."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.serving.prefix_cache import Stretch


@dataclass(slots=True, eq=False)
class ServedRequest:
    """One prompt with the tokens generated so far.

    `id` is the position in order of arrival, `request` the number of the request in its workload. A preempted
    sequence keeps its generated tokens: they join the prompt when it is computed again.
    """

    id: int
    prompt_tokens: int
    cached_tokens: int
    """Leading prompt tokens whose KV comes from the prefix cache, never computed."""
    output_tokens: int
    generated_tokens: int = 0
    request: int = 0
    blocks: tuple[int, ...] = ()
    """Chained hashes of the prompt's blocks."""
    answer_blocks: tuple[int, ...] = ()
    """Those that the answer goes on with, where a later prompt repeats it."""
    row: int = 0
    """Of the books of the run."""
    prefill_tokens: int = field(init=False)
    """Tokens whose KV the prefill makes: the prompt, and what was generated before a preemption."""
    prefill_blocks: int = field(init=False)
    """KV blocks that hold these."""
    computed_tokens: int = field(init=False, default=0)
    """Tokens of the running prefill whose KV exists, cached prefix included."""
    started_s: float = field(init=False)
    """When its latest prefill started."""
    first_step: int = 0
    """Decode step of the worker after which the sequence joined; one more for each that it has sat out."""
    steps: int = 0
    """Decode steps that it needs from there."""
    growth: float = field(init=False)
    """Tokens of each of these steps."""
    most_blocks: int = field(init=False)
    """KV blocks that it holds before the last of them."""
    stint: int = 0
    """Times that it has left a decode batch, finished or preempted."""
    unit: int = 0
    """The prefix cache that serves it."""
    held: Stretch | None = None
    """Where the blocks end that it holds there."""
    cached_by_tier: Sequence[int] = ()
    """`cached_tokens` by the tier of the prefix cache that holds them; empty where the workload gives them."""
    fetch_s: float = 0.0
    """Seconds until they are on its rank."""
    blocked_s: float = 0.0
    """Seconds of its wait for the prefill in which the next prompt of its rank found no room, or it none to decode."""
    answered_s: float = 0.0
    """When the prefill side has told the router that its KV is gone, where the router waits for that."""

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV the next step attends to, the newest one included."""
        return self.prompt_tokens + self.generated_tokens

    @property
    def remaining_tokens(self) -> int:
        """Output tokens still to generate."""
        return self.output_tokens - self.generated_tokens

    def tokens_after(self, steps: int) -> int:
        """Tokens generated in the first `steps` steps of the current stint: floor(remaining x steps / needed)."""
        return self.remaining_tokens * steps // self.steps
