"""A request, as the client sends it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Request:
    """One prompt and the answer that it will get.

    `cached_tokens` is given by the workload (`cached_fraction`); where `blocks` are present the prefix cache
    decides instead. `blocks` are chained hashes, one per block of prompt tokens; `answer_blocks` those with which
    a later prompt goes on that begins with this prompt and its answer, as far as the answer fills them.
    """

    id: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    blocks: tuple[int, ...] = ()
    answer_blocks: tuple[int, ...] = ()
