"""A calibration that can be stopped at any moment and goes on where it was.

Points are measured in order and each is recorded before the next begins, so the records are always a prefix of
the plan (but for what failed). Before a point begins its key is written down: a point that kills the process
(a crash inside a kernel) is found on the next start, and given up after `MOST_DEATHS` of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

from calibrate.coverage import Coverage, count, table_words, write
from calibrate.records import Key, Measurement, RecordFile

MOST_DEATHS: Final = 3
"""Times that a point may end the process before it is recorded as failed. More than one, since it may have been
someone's kill and not the point's fault."""


class OutOfTime(Exception):
    """The run's time ended during a point, which is not the point's fault: it is left for the next run."""


class Planned(Protocol):
    """A point to measure."""

    @property
    def key(self) -> Key:
        """Its identity in the records."""
        ...


@dataclass(frozen=True)
class InFlight:
    """The point that is being measured, kept on disk beside the records."""

    path: Path

    def deaths(self, key: Key) -> int:
        """How often the process ended while measuring this point, without a record."""
        try:
            noted = json.loads(self.path.read_text())
            return int(noted["deaths"]) if tuple(noted["key"]) == key else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0  # no note, or one that a kill tore: the point gets another chance

    def begin(self, key: Key) -> None:
        """Note that this point begins; counted as a death until `end`."""
        self.path.write_text(json.dumps({"key": key, "deaths": self.deaths(key) + 1}))

    def end(self) -> None:
        """The point has its record."""
        self.path.unlink(missing_ok=True)


class Session:
    """Measures the points that a records file does not have yet, until done or out of time."""

    def __init__(
        self, points: Sequence[Planned], records: RecordFile, whole: Sequence[Planned] | None = None
    ) -> None:
        """`whole`: the plan that the coverage is told of, where `points` are only its beginning."""
        self.records = records
        self.planned = {point.key for point in (whole or points)}
        self.pending = [point for point in _once(points) if point.key not in records.keys]
        self.in_flight = InFlight(records.path.with_name("in_flight.json"))

    def run(
        self,
        measure: Callable[[Any, Iterable[Measurement]], Measurement],
        give_up: Callable[[Any, str], Measurement],
        seconds: float | None = None,
    ) -> Iterator[Measurement]:
        """Measure and record, one point after the other; yields each record once it is on disk.

        `give_up` makes the failed record of a point that ended the process too often. Stops before the point that
        would begin after `seconds`, or where `measure` raises OutOfTime. Another exception of it leaves the records as
        they are.
        """
        begin = monotonic()
        while self.pending and (seconds is None or monotonic() - begin < seconds):
            point = self.pending[0]
            deaths = self.in_flight.deaths(point.key)
            if deaths >= MOST_DEATHS:
                record = give_up(point, f"ended the process {deaths} times")
            else:
                self.in_flight.begin(point.key)
                try:
                    record = measure(point, self.records.records)
                except KeyboardInterrupt:
                    self.in_flight.end()  # the user stopped it: not the point's fault
                    raise
                except OutOfTime:
                    self.in_flight.end()
                    return
            self.records.append(record)
            self.in_flight.end()
            self.pending.pop(0)
            yield record

    def coverage(self) -> Coverage:
        """Tables of the plan with the shapes that some back-end has measured."""
        measured = (record.key for record in self.records.records if record.ok)
        return count(map(_table_and_shape, self.planned), map(_table_and_shape, measured))

    def note_coverage(self) -> None:
        """Write the coverage beside the records."""
        write(self.records.path.parent, self.coverage())


def _table_and_shape(key: Key) -> tuple[str, str]:
    operation, shape, dtype, options, _ = key
    return table_words(operation, dtype, json.loads(options)), shape


def _once(points: Sequence[Planned]) -> list[Planned]:
    return list({point.key: point for point in points}.values())
