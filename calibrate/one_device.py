"""The environment of records, which must be of one device: nothing can be fitted to the times of two."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from calibrate.tables import NoRecords
from sim.cost.record import BadRecord, Record

IDENTITY: Final = ("name", "memory_bytes", "device")
"""What two records of one device share. Versions of drivers may change between two of its campaigns."""


def environment_of(records: Sequence[Record]) -> Mapping[str, Any]:
    """What all the records say of their device.

    Raises NoRecords where there are none, BadRecord where one says nothing of its device, or they are of several.
    """
    if not records:
        raise NoRecords("the file holds no record")
    seen: dict[tuple[Any, ...], tuple[int, int]] = {}
    for number, record in enumerate(records, start=1):
        if not isinstance(record.environment.get("name"), str) or not record.environment["name"]:
            raise BadRecord(f"record {number}: `environment` does not name the device (key `name`)")
        one = tuple(str(record.environment.get(key)) for key in IDENTITY)
        first, count = seen.get(one, (number, 0))
        seen[one] = first, count + 1
    if len(seen) > 1:
        told = "; ".join(
            f"{one[0]} with {one[1]} bytes of memory ({count:,} records, the first is record {first})"
            for one, (first, count) in list(seen.items())[:4]
        )
        raise BadRecord(f"records of {len(seen)} devices in one file, expected one: {told}")
    return records[0].environment
