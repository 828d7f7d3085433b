"""Backends say what they cannot do; a kernel is timed only when it is right; records carry FLOP, bytes, ceilings."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate import trial
from calibrate.cases import Case, plan
from calibrate.environment import Device, Watch, describe, find_device
from calibrate.grid import moved
from calibrate.kernels.backend import Backend, difference, sample_rows
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.library import Needs
from calibrate.measure import Bench, Ceilings, find_ceilings, find_points
from calibrate.records import Measurement
from calibrate.trial import Point
from sim.catalog import model
from sim.model import operations as ops

V32 = model("deepseek-v3.2")
H100 = Device("cuda", "H100", 1, 85 * 10**9, 50 * 2**20, (9, 0), 132)
B200 = replace(H100, name="B200", capability=(10, 0))
A100 = replace(H100, name="A100", capability=(8, 0))


def gemm(m=4, dtype="bf16"):
    return Case(ops.gemm("", "dense", m, 256, 256, dtype), V32)


def backend(kernel, name, dtype):
    return next(b for b in FAMILIES[kernel].backends if b.name == name and dtype in b.dtypes)


@pytest.fixture
def bench(cpu):
    return Bench(cpu, {"device": "cpu"}, Watch(cpu))


def test_every_family_that_one_gpu_can_run_has_a_torch_backend_on_a_cpu():
    several = {"all_reduce", "all_gather", "reduce_scatter", "dispatch", "combine"}
    for kernel, family in FAMILIES.items():
        assert kernel in several or any(b.cpu and b.needs is None for b in family.backends), kernel


def test_backends_name_the_capability_dtype_shape_or_package_that_is_missing(cpu):
    deep_gemm = backend("gemm", "deep_gemm", "fp8")
    assert deep_gemm.refuses(gemm(4, "fp8"), cpu) == "needs a GPU"
    assert "needs compute capability 9.x, 10.x, this is 8.0" in str(deep_gemm.refuses(gemm(4, "fp8"), A100))
    if Needs(("deep_gemm",)).missing:
        assert deep_gemm.refuses(gemm(4, "fp8"), H100) == "deep_gemm is not installed"
    assert "takes fp8, not bf16" in str(replace(backend("gemm", "torch", "fp8")).refuses(gemm(), H100))
    flash_mla = replace(backend("mla_decode", "flash_mla", "bf16"), needs=None)
    sparse = replace(backend("sparse_mla_decode", "flash_mla", "fp8"), needs=None)
    wide = Case(ops.sparse_mla("decode", 256, 1, 1, 63, 64, 512, 64, 656, "fp8"), V32)
    assert sparse.refuses(wide, H100) == "takes up to 128 heads"
    fp8_cache = Case(ops.mla_decode(128, 1, 64, 1, 512, 64, 576, "fp8"), V32)
    assert flash_mla.refuses(fp8_cache, H100) == "reads a BF16 cache"
    heads128 = Case(ops.mla_decode(128, 1, 64, 1, 512, 64, 1152, "bf16"), V32)
    assert flash_mla.refuses(heads128, H100) is None
    assert "9.x" in str(flash_mla.refuses(heads128, B200))


def test_a_package_that_does_not_load_is_reported_not_raised():
    absent = Needs(("a_package_that_nobody_has", "another_one"), ("call",))
    assert absent.missing == "a_package_that_nobody_has is not installed"
    assert Needs(("json",), ("loads",)).missing is None


def test_missing_backends_are_listed_and_the_others_planned(cpu):
    points, refusals = find_points([gemm(), gemm(8), gemm(4, "fp8")], cpu)
    assert [(p.case.size("m"), p.backend.name) for p in points] == [(4, "torch"), (8, "torch"), (4, "torch")]
    assert ("gemm", "triton", "needs a GPU") in {(r.kernel, r.backend, r.reason) for r in refusals}
    assert len(refusals) == len({(r.kernel, r.backend, r.reason) for r in refusals})


def test_every_case_is_planned_with_its_preferred_backend_before_any_other(monkeypatch):
    monkeypatch.setattr(Needs, "missing", None)
    cases = plan(V32, "cuda", H100.memory_bytes)
    points, _ = find_points(cases, H100)
    first = points[: len(cases)]
    assert [p.case for p in first] == cases  # with all packages on a Hopper no case is left out
    assert len(points) > 2 * len(cases)
    names = {(p.case.operation.kernel, p.backend.name) for p in first}
    assert {("gemm", "deep_gemm"), ("mla_decode", "flash_mla"), ("sparse_mla_decode", "flash_mla")} <= names
    assert len({p.key for p in points}) == len(points)


def test_a_point_has_times_flop_bytes_and_its_share_of_the_ceiling(bench):
    operation = gemm(16).operation
    best = Measurement("gemm", {}, "bf16", 1.0, flop=1e9, bytes=1.0)  # 1e15 FLOP/s
    copy = Measurement("copy", {}, "bf16", 1.0, bytes=1e3)  # 1e9 bytes/s

    record = bench.measure(Point(gemm(16), backend("gemm", "torch", "bf16")), [best, copy])

    assert record.ok
    assert record.error is None
    assert record.method == "clock"
    assert record.us_p10 <= record.us_median <= record.us_p90
    assert len(record.samples_us) >= 5
    assert record.flop == 2 * 16 * 256 * 256
    assert record.bytes == operation.bytes == (16 * 256 + 256 * 256 + 16 * 256) * 2
    least_s = record.bytes / 1e9  # the copy binds: 2e6 FLOP take 2e-9 s at 1e15 FLOP/s
    assert record.fraction_of_ceiling == pytest.approx(least_s / (record.us_median * 1e-6))


def test_ceilings_by_hand():
    records = [
        Measurement("gemm", {}, "bf16", 2.0, flop=8e6),  # 4e12 FLOP/s
        Measurement("gemm", {}, "bf16", 1.0, flop=6e6),  # 6e12
        Measurement("gemm", {}, "fp8", 1.0, flop=5e6),  # 5e12, but FP8 can be widened to BF16
        Measurement("gemm", {}, "bf16", None, ok=False, flop=1e30),
        Measurement("copy", {}, "bf16", 4.0, bytes=8e6),  # 2e12 bytes/s
    ]
    found = find_ceilings(records)
    assert found.flop_per_s == {"bf16": pytest.approx(6e12), "fp8": pytest.approx(6e12)}
    assert found.bytes_per_s == pytest.approx(2e12)
    assert found.fraction(12e12, 1e12, "bf16", 4.0) == pytest.approx(0.5)  # 2 s of arithmetic in 4 s
    assert found.fraction(0.0, 1e12, "fp32", 1.0) == pytest.approx(0.5)
    assert Ceilings({}, None).fraction(1.0, 1.0, "bf16", 1.0) is None


def planted(kernel, build):
    return Backend("planted", build, cpu=True)


def test_a_kernel_that_disagrees_is_recorded_without_times(bench, monkeypatch):
    monkeypatch.setattr(trial, "time_calls", lambda *_: pytest.fail("a wrong kernel was timed"))
    wrong = planted("gemm", lambda case, t: lambda: 1.05 * torch.nn.functional.linear(t["x"], t["w"]))

    record = bench.measure(Point(gemm(), wrong), [])

    assert not record.ok
    assert (record.us_median, record.samples_us) == (None, ())
    assert record.deviation == pytest.approx(0.05**2 / 2, rel=0.1)  # half the squared relative error
    assert record.error.startswith("disagrees with its reference: 1.")
    assert record.error.endswith("at most 2e-05 allowed")


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_wrong(bench, poison):
    def build(case, tensors):
        output = torch.nn.functional.linear(tensors["x"], tensors["w"])
        output[-1, -1] = poison
        return lambda: output

    record = bench.measure(Point(gemm(40), planted("gemm", build)), [])

    assert not record.ok
    assert record.deviation is None  # JSON has no infinity


def test_a_kernel_that_raises_is_recorded_and_nothing_else_suffers(bench):
    def build(case, tensors):
        raise RuntimeError("no kernel image is available\nand more lines")

    record = bench.measure(Point(gemm(), planted("gemm", build)), [])

    assert not record.ok
    assert record.error == "RuntimeError: no kernel image is available"
    assert bench.measure(Point(gemm(), backend("gemm", "torch", "bf16")), []).ok


def test_inputs_depend_on_the_point_alone(bench):
    seen = []

    def build(case, tensors):
        seen.append(tensors["x"].clone())
        return lambda: torch.nn.functional.linear(tensors["x"], tensors["w"])

    for _ in range(2):
        bench.measure(Point(gemm(), planted("gemm", build)), [])
    assert torch.equal(seen[0], seen[len(seen) // 2])
    assert not torch.equal(seen[0], seen[1])  # a rotated copy holds other numbers
    assert all(x.any() for x in seen)


@pytest.mark.parametrize(
    "case",
    [
        Case(moved("copy", {"bytes": 4096}, 4096), V32),
        Case(moved("launch", {"bytes": 4}, 4), V32),
        Case(ops.elementwise("", "other", 4 * 7168 * 2 * 3), V32),
        Case(moved("elementwise", {"bytes": 3 * 7168 * 2 * 3}, 1, function="silu_mul"), V32),
        Case(ops.quantize("", "dense", 4, 256), V32),
        Case(ops.absorb_bmm("post", 3, 2, 128, 512), V32),
        Case(moved("moe_gate", {"tokens": 3, "experts": 256, "top_k": 8}, 1), V32),
        Case(moved("moe_permute", {"tokens": 3, "experts": 256, "top_k": 8, "hidden": 64}, 1), V32),
    ],
    ids=lambda case: case.operation.kernel,
)
def test_small_families_agree_with_their_references(case, bench):
    family = FAMILIES[case.operation.kernel]
    record = bench.measure(Point(case, next(b for b in family.backends if b.cpu)), [])
    assert record.ok, record.error


def test_difference_by_hand():
    # x = (1, 1), y = (1, 0): 1 - 2 x 1 / (2 + 1) = 1/3
    assert difference(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])) == pytest.approx(1 / 3)
    assert difference(torch.zeros(3), torch.zeros(3)) == 0
    assert difference(torch.tensor([float("nan")]), torch.zeros(1)) == float("inf")
    with pytest.raises(ValueError, match=r"shape \(2,\), the reference \(3,\)"):
        difference(torch.zeros(2), torch.zeros(3))


def test_first_and_last_row_are_always_checked():
    rows = sample_rows(1000, torch.device("cpu")).tolist()
    assert rows[0] == 0
    assert rows[-1] == 999
    assert len(rows) == 8
    assert sample_rows(3, torch.device("cpu")).tolist() == [0, 1, 2]


def test_the_environment_says_that_a_cpu_is_a_cpu():
    device = find_device("cpu")
    found = describe(device)
    assert (found["device"], found["threads"], found["compute_capability"]) == ("cpu", 1, "0.0")
    assert found["torch"] == torch.__version__
    assert found["memory_bytes"] > 0
    assert describe(device) == found
    with pytest.raises(ValueError, match="cpu or cuda, not 'tpu'"):
        find_device("tpu")


@pytest.mark.parametrize(
    ("broken", "lost"), [(RuntimeError, True), (torch.OutOfMemoryError, False)], ids=["dead", "full"]
)
def test_a_dead_gpu_is_told_from_a_full_one(monkeypatch, broken, lost):
    """Every call into a dead context fails, the one that frees memory too; a full one only fails the point."""

    def fail(*_, **__):
        raise broken("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    trials = trial.Trials(H100)
    monkeypatch.setattr(trials, "_run", fail)

    with pytest.raises(trial.TrialFailed, match="illegal memory access") as raised:
        trials.run(Point(gemm(), backend("gemm", "torch", "bf16")))

    assert raised.value.lost is lost


def test_copies_rotate_what_a_call_reads_not_what_it_could_read(bench, monkeypatch):
    """Sparse attention over 4,096 entries reads 2,048: twice the copies of a kernel that reads all."""
    wanted = []
    monkeypatch.setattr(
        trial, "copies_needed", lambda touched, held, device: wanted.append((touched, held)) or 1
    )
    sparse = Case(ops.sparse_mla("decode", 1, 1, 1, 4095, 2048, 512, 64, 656, "fp8"), V32)

    assert bench.measure(Point(sparse, backend("sparse_mla_decode", "torch", "fp8")), []).ok

    ((touched, held),) = wanted
    assert touched == round(sparse.operation.bytes) < 2048 * 656 * 1.1
    assert held > 4096 * 656
