"""A result file -> its runs, by the reader of its format."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from sim.files import read_text
from sim.validation.bench import clients, inferencex, profile_export
from sim.validation.bench.numbers import Values
from sim.validation.bench.run import BenchError, BenchRun, formats

READERS: Final[tuple[tuple[Callable[[Values], str | None], Callable[[str, str, Values], BenchRun]], ...]] = (
    (inferencex.tool_of, inferencex.read_agg),
    (profile_export.tool_of, profile_export.read_export),
    (clients.tool_of, clients.read_client),
)
"""What knows a format, and what reads it."""
AGGREGATED: Final = "several runs of AIPerf together; profile_export_aiperf.json of each has what is read"
OTHERS: Final = {
    (
        "metadata",
        "metrics",
    ): "single requests of AIPerf; profile_export_aiperf.json beside it has what is read",
    (
        "experiments",
    ): "single requests of genai-perf; profile_export_genai_perf.json beside it has what is read",
    ("requests_per_second", "elapsed_time"): "a result of vllm bench throughput, which serves nobody",
    ("avg_latency", "latencies"): "a result of vllm bench latency, which serves nobody",
    ("benchmarks",): "a report of GuideLLM, as it seems",
    (
        "benchmark",
        "metric",
    ): "a record for PyTorch's dashboard; the result of vllm bench serve lies beside it",
    ("combined", "per_run"): AGGREGATED,
}
"""Keys of files that are not read, and what they are."""


def read_benches(paths: Iterable[Path]) -> list[BenchRun]:
    """The runs of several files, each with an id of its own. Raises as `read_bench`."""
    found: dict[str, BenchRun] = {}
    for path in paths:
        for run in read_bench(path):
            names = chain([run.id], (f"{run.id}-{n}" for n in count(2)))
            id = next(name for name in names if name not in found)
            found[id] = replace(run, id=id)
    return list(found.values())


def read_bench(path: Path) -> list[BenchRun]:
    """The runs of a file, in its order.

    Raises BenchError, which names what is read, for a file of another tool, and where a value makes no sense.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not text.strip():
        raise BenchError(f"{path}: is empty; {what_is_read()}")
    found = list(_objects(path, text))
    if not found:
        raise BenchError(f"{path}: is empty; {what_is_read()}")
    several = len(found) > 1
    return [_run(f"{path.stem}:{n}" if several else path.stem, place, data) for n, place, data in found]


def what_is_read() -> str:
    """All formats, for an error."""
    told = "; ".join(f"{tool['name']} ({tool['files']})" for tool in formats()["tools"].values())
    return f"expected a result of {told}"


def _objects(path: Path, text: str) -> Iterator[tuple[int, str, Any]]:
    """(number, place, object): one object, a list of them, or one a line."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if len(lines) < 2 or not lines[0][1].rstrip().endswith("}"):
            where = f"{path}:{error.lineno}:{error.colno}"
            raise BenchError(f"{where}: broken JSON: {error.msg}; {what_is_read()}") from None
        for n, line in lines:
            try:
                yield n, f"{path}:{n}", json.loads(line)
            except json.JSONDecodeError as broken:
                raise BenchError(f"{path}:{n}:{broken.colno}: broken JSON: {broken.msg}") from None
        return
    except RecursionError:
        raise BenchError(f"{path}: brackets too deep; {what_is_read()}") from None
    for n, one in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield n, f"{path}: entry {n}" if isinstance(whole, list) else str(path), one


def _run(id: str, place: str, data: Any) -> BenchRun:
    if isinstance(data, dict):
        values = Values(place, data)
        if values.at("metadata.aggregation_type") is not None:
            raise BenchError(f"{place}: {AGGREGATED}; {what_is_read()}")
        for tool_of, reader in READERS:
            if tool := tool_of(values):
                return reader(id, tool, values)
        for keys, known in OTHERS.items():
            if set(keys) <= data.keys():
                raise BenchError(f"{place}: {known}; {what_is_read()}")
    raise BenchError(f"{place}: not a result that is read; {what_is_read()}")
