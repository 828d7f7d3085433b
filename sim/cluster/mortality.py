"""What the life of workers asks of a cluster."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sim.cluster.ledger import Meter
from sim.serving.decode_batch import DecodeBatch
from sim.serving.served_request import ServedRequest
from sim.step import StepCost


class Mortal(Protocol):
    """A cluster whose workers come and go; see `sim.cluster.mortal`."""

    @property
    def meters(self) -> Mapping[str, Meter]:
        """By role; likewise `costs`."""
        ...

    @property
    def costs(self) -> Mapping[str, StepCost]: ...

    @property
    def waits(self) -> bool:
        """Whether requests wait for a worker to come."""
        ...

    def open(self, role: str, worker: int) -> None:
        """The worker serves: the router may choose it."""
        ...

    def close(self, role: str, worker: int) -> None:
        """The router may not choose it any more."""
        ...

    def empty(self, role: str, worker: int) -> bool:
        """Whether it has nothing left to do."""
        ...

    def retire(self, role: str, worker: int) -> None:
        """It is empty and goes, with what it cached."""
        ...

    def fail(self, role: str, worker: int) -> list[ServedRequest]:
        """It fails; the requests that are lost with it."""
        ...

    def detect(self, role: str, worker: int) -> list[ServedRequest]:
        """The router learns of it; what it has sent there meanwhile."""
        ...

    def submit(self, sequences: list[ServedRequest]) -> None:
        """See `Frontend.submit`."""
        ...

    def requests(self, role: str, worker: int) -> int:
        """Requests of a worker, waiting ones included."""
        ...

    def batches(self, role: str) -> Sequence[DecodeBatch]:
        """Of all workers of a pool; none where it only computes prompts."""
        ...
