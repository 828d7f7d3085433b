"""The check of a GPU by an interpreter that has torch and Triton and nothing else: `python -m calibrate.bare`.

For machines without network and pip: no part of it imports another package. First every backend that can run is
compared with its reference on small shapes, and the small engine's answers with those on the CPU, then a quick
calibration, and a decode layer as a whole against the sum of its kernels; last what to look at first. Records are those
of `tokenworks calibrate run`, to be fitted where that is installed; `tokenworks calibrate blind` then tells shapes off
the grid.
"""

import argparse
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Final

from calibrate import checks, runner
from calibrate.coverage import lacks
from calibrate.measure import Bench, find_ceilings
from calibrate.records import RecordsError
from calibrate.session import Session
from calibrate.trial import TrialFailed
from sim.catalog import model as find_model

EXPECTED: Final = {
    "BF16 GEMM": "about 790 TFLOP/s on an H200",
    "copy": "about 4.3 TB/s read and written on an H200",
    "launch": "1.5 to 2.5 us in a graph",
    "layer": "5% at most",
}
"""What to hold the ceilings against: dense BF16 as cuBLAS and DeepGEMM reach it (989 TFLOP/s by the datasheet), 90% of
4.8 TB/s, and an empty kernel between others."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 all agree and points were measured, 1 not, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu-check"), help="folder of records.jsonl")
    parser.add_argument(
        "--minutes", type=float, default=runner.MINUTES["quick"], help="time of the calibration"
    )
    parser.add_argument("--check-minutes", type=float, default=3.0, help="time of the comparison before it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=None)
    parser.add_argument("--model", default="deepseek-v3.2")
    given = parser.parse_args(arguments)
    begin = monotonic()
    try:
        session, bench, refusals, _ = runner.prepare(given.model, given.out, True, given.device)
    except (RecordsError, LookupError, ValueError) as error:
        print(error)
        return 2
    print(f"{bench.device.name}; torch {bench.environment['torch']}, {bench.environment['packages']}")
    for backend, reason in sorted({(r.backend, r.reason) for r in refusals}):
        print(f"  {backend}: {reason}")
    try:
        agree = compare(bench, 60 * given.check_minutes)
        if bench.device.kind == "cuda":
            agree = engine_agrees() and agree
        measure(session, bench, 60 * given.minutes)
        if bench.device.kind == "cuda":
            layer_as_a_whole(bench, given.model)
    finally:
        bench.close()
        session.records.__exit__()
        session.note_coverage()
    report(session)
    print(f"Records: {session.records.path}. {monotonic() - begin:.0f} s.")
    return 0 if agree and any(record.ok for record in session.records.records) else 1


def compare(bench: Bench, seconds: float) -> bool:
    """Run every backend on the small cases, and print those that fail; returns whether none does."""
    bench.until = monotonic() + seconds
    found: Counter[str] = Counter()
    for point in checks.points():
        if point.backend.refuses(point.case, bench.device):
            found["refused"] += 1
        elif monotonic() > bench.until:
            found["out of time"] += 1
        elif (record := bench.try_point(point)) is None or record.ok:
            found["out of time" if record is None else "agree"] += 1
        else:
            found["fail"] += 1
            print(f"  {checks.name(point)}: {record.error}", flush=True)
    print(
        "Backends on small shapes: " + ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
    )
    return not found["fail"]


def engine_agrees() -> bool:
    """Whether the small engine's greedy answers on the GPU are those on the CPU, token for token."""
    import torch  # noqa: PLC0415 (after the bench has found the device)

    from calibrate.engine.check import same_as_on_the_cpu  # noqa: PLC0415

    same = same_as_on_the_cpu(torch.device("cuda"))
    print(f"Engine: answers on the GPU and on the CPU {'are the same' if same else 'DIFFER'}.", flush=True)
    return same


def layer_as_a_whole(bench: Bench, model: str) -> None:
    """Print by how much the sum of a decode layer's kernels misses the layer in one graph."""
    from calibrate.layer import time_layer  # noqa: PLC0415 (after the bench has found the device)

    try:
        found = time_layer(find_model(model), bench.device)
    except (TrialFailed, RuntimeError) as error:
        print(f"  a decode layer in one graph: {error}", flush=True)
        return
    print(
        f"  a decode layer in one graph: {found.kernels} kernels, {found.together_us:.0f} us; the sum of their points "
        f"is {found.error:+.1%} off (expected: {EXPECTED['layer']})",
        flush=True,
    )
    if found.lacking:
        print(f"  without {', '.join(found.lacking)}", flush=True)


def measure(session: Session, bench: Bench, seconds: float) -> None:
    """A calibration within its time; failures are printed as they come."""
    done, kernels = runner.compile_ahead(session, bench, seconds * runner.GRACE)
    print(f"Compiled {done} of {kernels} kernels ahead.", flush=True)
    bench.start()
    bench.until = monotonic() + seconds * (1 + runner.GRACE)
    with bench.watch:
        for record in session.run(bench.measure, bench.give_up, seconds):
            if not record.ok:
                print(f"  {runner.label(record)}: {record.error}", flush=True)


def report(session: Session) -> None:
    """Points by operation and backend, the ceilings beside what is expected of them, and what is not measured yet."""
    records = session.records.records
    for (operation, backend), count in sorted(Counter((r.operation, r.backend) for r in records).items()):
        right = sum(r.ok for r in records if (r.operation, r.backend) == (operation, backend))
        print(f"  {operation} {backend}: {right} of {count} ok")
    ceilings = find_ceilings(records)
    launches = [r.us_median for r in records if r.operation == "launch" and r.us_median]
    reached = {
        "BF16 GEMM": f"{ceilings.flop_per_s.get('bf16', 0) / 1e12:.0f} TFLOP/s",
        "copy": f"{(ceilings.bytes_per_s or 0) / 1e12:.2f} TB/s",
        "launch": f"{min(launches):.2f} us" if launches else "not measured",
    }
    for what, value in reached.items():
        print(f"  {what}: {value} (expected: {EXPECTED[what]})")
    if left := lacks(session.coverage()):
        print(f"Not measured yet: {', '.join(left)}.")


if __name__ == "__main__":
    raise SystemExit(main())
