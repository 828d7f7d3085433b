"""What steps ask for lies inside what a calibration measures: chunks, prompts, batches, contexts, drafts.

Prices beyond the hull are the form's guess. Communication is left out: one GPU measures none.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.cases import plan
from calibrate.grid import GPU_AXES
from calibrate.tables import tables_from_records
from sim.catalog import model
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.record import Record
from sim.deployment.plan import resolve
from sim.kernels import FAMILIES
from sim.kernels.family import Dims
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import load
from sim.step.pricing import step_operations

H200_BYTES = 150 * 10**9
WHERE = {"deepseek-v3.2": "deepseek-v3.2", "deepseek-v3": "deepseek-v3"}


def tables(name):
    """The whole plan as tables, as if every kernel took a microsecond; methods do not matter for where a shape lies."""
    found = {}
    records = [
        Record(c.operation.kernel, dict(c.operation.shape), c.operation.dtype, 1.0, options=dict(c.operation.options))
        for c in plan(model(name), "cuda", H200_BYTES)
    ]  # fmt: skip
    dims = Dims.of(model(name))
    for table in tables_from_records(records):
        stages = len(FAMILIES[table.kernel].work(table.shape, table.variant, dims))
        fit = Fit(Form(1e-6, 1.0, (1e12,) * stages, (1e12,) * stages), "linear")
        priced = PricedTable(replace(table, fit=fit), dims)
        found.setdefault((table.kernel, table.variant.dtype), []).append((table.variant.options, priced))
    return found


@pytest.fixture(scope="module")
def measured():
    return {name: tables(name) for name in WHERE}


def parts(operations):
    for operation in operations:
        yield from parts(operation.parts) if operation.parts else (operation,)


def outside(measured, operations):
    for operation in parts(operations):
        if operation.kernel == "host" or operation.group == "communication":
            continue
        found = [
            priced
            for options, priced in measured.get((operation.kernel, operation.dtype), [])
            if all(operation.options.get(k) == v for k, v in options.items())
        ]
        assert found, f"no table for {operation.kernel} {operation.dtype} {operation.options}"
        if found[0].seconds(operation.shape)[1] == "extrapolated" and not no_such_corner(operation.shape):
            yield operation.name, operation.kernel, {a: round(v, 2) for a, v in operation.shape.items()}


def no_such_corner(shape):
    """New tokens between two measured numbers, in a context shorter than the larger one: nobody can measure that corner
    of the grid, and the form carries the price to it."""
    larger = [new for _, new in GPU_AXES.prompts if new > shape.get("new", 0)]
    return "context" in shape and bool(larger) and shape["new"] > 1 and shape["context"] < min(larger)


def scenarios():
    """Those to run: what others measured, on other GPUs and in other formats, is for `validate`."""
    for file in map(str, sorted(Path("scenarios").rglob("*.yaml"))):
        if "published" in file:
            continue
        try:
            scenario = load(file).scenario
        except ScenarioError:
            continue  # a plan
        deployment = resolve(scenario)
        if deployment.model.name in WHERE:
            yield file, deployment


FILES = list(scenarios())


def steps(deployment):
    """Steps of every pool: explain's defaults, one sequence and the most, short and long contexts that fit."""
    for plan_ in deployment.pools.values():
        for phase in plan_.layouts:
            step = step_operations(deployment, phase)
            if phase == "decode":
                for batch in (1, 16, min(512, plan_.max_sequences)):
                    for context in (512, 4096, 30_000, 120_000):
                        if batch * context <= plan_.memory.kv_tokens or context == 4096:
                            at = step.at(batch)
                            yield f"decode {batch} x {context}", at.decode_attention(batch, context)
                            yield f"decode {batch}", at.decode_rest(batch)
            else:
                chunk = min(8192, plan_.chunk_tokens)
                for prompts, new, cached in (
                    (1, chunk, 0), (1, 256, 0), (1, 256, 4000), (1, chunk, 100_000), (1, 3000, 5000), (3, chunk / 3, 0),
                    (8, chunk / 8, 0), (8, chunk / 8, 4000), (chunk / 256, 256, 0),
                ):  # fmt: skip
                    yield (
                        f"prefill {prompts:g} x {new:g} behind {cached}",
                        step.prefill_attention(prompts, new, cached),
                    )
                yield f"prefill {chunk}", step.prefill_rest(chunk)


@pytest.mark.parametrize(("file", "deployment"), FILES, ids=[file for file, _ in FILES])
def test_what_ready_scenarios_ask_for_was_measured(measured, file, deployment):
    found = {}
    for words, operations in steps(deployment):
        for name, kernel, shape in outside(measured[deployment.model.name], operations):
            found.setdefault((kernel, name), f"{words}: {shape}")
    assert not found, "\n".join(f"{key}: {where}" for key, where in found.items())
