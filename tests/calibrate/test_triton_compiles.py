"""Our Triton kernels compile for Hopper and Blackwell on a machine without one: tensor cores, shared memory, FP8, and
no spilling.

Run as a program it compiles the first configuration of each kernel for both and prints; with `all` every configuration
that is tried on a GPU, which takes two minutes. The test does the former in a process of its own, without the
interpreter.
"""

# ruff: noqa: PLC0415 (triton is imported in a process of its own, where nothing has chosen the interpreter)

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs triton: pip install 'tokenworks[kernels]'")

SHARED_BYTES = 227 * 1024
"""Shared memory of one block on compute capabilities 9.0 and 10.0 (CUDA C++ programming guide, technical
specifications)."""
CORES = {90: ("wgmma.mma_async", "mma.sync"), 100: ("tcgen05.mma", "mma.sync")}
"""Tensor-core instructions, the GPU's own first."""


def stack_bytes(cubin):
    """Bytes of local memory per thread: what does not fit into registers."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return max(int(found) for found in re.findall(r"STACK:(\d+)", text))


def compile_routing(build, chosen):
    from calibrate.kernels import triton_routing as routing

    pointers = {"logits": "fp32", "bias": "fp32", "chosen": "i32", "weights": "fp32"}
    for configuration in chosen(routing.GATE_CONFIGURATIONS):
        constants = {"GROUPS": 8, "EACH": 32, "KEPT": 4, "TOP_K": 8}
        build("gate", routing._gate, pointers, {}, constants, configuration)
    pointers = {"chosen": "i32", "counts": "i32", "positions": "i32"}
    for configuration in chosen(routing.SCAN_CONFIGURATIONS):
        build("count", routing._count, pointers, {}, {}, configuration)
        build("place", routing._place, pointers, {}, {"EXPERTS": 256}, configuration)
    pointers = {"x": "bf16", "rows": "bf16", "positions": "i32", "weights": "fp32", "output": "bf16"}
    for configuration in chosen(routing.MOVE_CONFIGURATIONS):
        build("spread", routing._spread, pointers, {}, {"TOP_K": 8}, configuration)
        build("sum", routing._sum, pointers, {}, {"TOP_K": 8}, configuration)


def compile_all(capability, every):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from calibrate.kernels import triton_attention as attention
    from calibrate.kernels import triton_gemm as gemm
    from calibrate.kernels import triton_index as index
    from calibrate.kernels import triton_quantize as quantize

    multiples = ("n", "k", "hidden", "heads", "width", "chunk", "stride", "scale_column")
    found = {}

    def chosen(configurations):
        return configurations if every else configurations[:1]

    def build(name, kernel, pointers, numbers, constants, configuration):
        names = kernel.arg_names
        options = {key: value for key, value in configuration.items() if key.startswith("num_")}
        constants = constants | {key: value for key, value in configuration.items() if key not in options}
        types = {key: f"*{kind}" for key, kind in pointers.items()} | numbers
        signature = {key: "constexpr" if key in constants else types.get(key, "i32") for key in names}
        aligned = [key for key in names if signature[key].startswith("*") or key in multiples]
        source = ASTSource(
            kernel,
            signature,
            {(names.index(key),): value for key, value in constants.items()},
            {(names.index(key),): [["tt.divisibility", 16]] for key in aligned},
        )
        made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        found[f"{name} {' '.join(str(v) for v in configuration.values())}"] = {
            "shared_bytes": made.metadata.shared,
            "cores": [core for core in CORES[capability] if core in made.asm["ptx"]],
            "fp8": any(kind in made.asm["ptx"] for kind in ("e4m3", "f8f6f4")),
            "stack_bytes": stack_bytes(made.asm["cubin"]),
        }

    widths = {"WIDEN": False, "PAGE": 64, "LATENT": 512, "ROPE": 64, "ENTRY": 656, "GROUP": 128}
    caches = {
        "bf16": ("bf16",) * 3, "fp8": ("fp8e4nv",) * 3, "packed fp8": ("fp8e4nv", "fp32", "bf16")
    }  # fmt: skip
    for heads in (16, 32):
        for name, cache in caches.items():
            most = attention.MOST_HEADS[name.startswith("packed")]
            if heads > most or (heads < most and not every):
                continue
            pointers = dict(zip(("entries", "scales", "ropes"), cache, strict=True))
            pointers |= {"q": "bf16", "index": "i32", "lengths": "i32", "parts": "fp32", "logs": "fp32"}
            packed = name.startswith("packed")
            constants = widths | {"HEADS": heads, "SPARSE": packed, "PACKED": packed}
            for configuration in chosen(attention.CONFIGURATIONS):
                build(
                    f"attend {name} {heads}",
                    attention._attend,
                    pointers,
                    {"scale": "fp32"},
                    constants,
                    configuration,
                )
    pointers = {
        "q": "fp8e4nv",
        "keys": "fp8e4nv",
        "factors": "fp32",
        "weights": "fp32",
        "pages": "i32",
        "logits": "fp32",
    }
    for paged, configurations in index.CONFIGURATIONS.items():
        constants = {"PAGED": paged, "HEADS": 64, "DIM": 128, "KEYS": 64, "ENTRY": 132}
        for configuration in chosen(configurations):
            build(f"index {paged} fp8", index._index, pointers, {}, constants, configuration)
    for configuration in chosen(index.TOPK_CONFIGURATIONS):
        rows = {"scores": "fp32", "lengths": "i32", "indices": "i32"}
        build("select", index._select, rows, {}, {"BITS": 8}, configuration)
    compile_routing(build, chosen)
    tables = {"tile_group": "i32", "tile_start": "i32", "tile_end": "i32"}
    for scaled, kind in ((True, "fp8e4nv"), (False, "bf16"))[: 2 if every else 1]:
        pointers = {"x": kind, "x_scales": "fp32", "w": kind, "w_scales": "fp32", "output": "bf16", **tables}
        for rows in (16, 32, 64, 128) if every else (16, 128):
            constants = {
                "GROUPED": True, "SCALED": scaled, "WIDEN": False, "SWAP": rows < gemm.SWAPPED_BELOW, "ROWS": rows,
                "INNER": gemm.INNER[scaled], "BLOCK": 128, "RASTER": gemm.RASTER,
            }  # fmt: skip
            for configuration in chosen(gemm.configurations(rows)):
                name = f"gemm {'fp8' if scaled else 'bf16'} {rows}"
                build(name, gemm._gemm, pointers, {}, constants, configuration)
    pointers = {"x": "bf16", "values": "fp8e4nv", "scales": "fp32", "counts": "i32"}
    for packed in (True, False)[: 2 if every else 1]:
        pointers["scales"] = "i32" if packed else "fp32"
        constants = {"GATED": True, "SCALED": True, "PACKED": packed, "MASKED": True, "LIMIT": 448.0}
        constants |= {"MANTISSA": 23, "BLOCK": 128, "GROUPS": 4}
        for configuration in chosen(quantize.CONFIGURATIONS):
            build(f"quantize {packed} fp8", quantize._quantize, pointers, {}, constants, configuration)
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    done = subprocess.run(
        [sys.executable, __file__],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(params=CORES)
def kernels(request, compiled):
    return request.param, compiled[str(request.param)]


def test_every_kernel_fits_into_a_blocks_shared_memory_and_its_registers(kernels):
    _, found = kernels
    assert len(found) >= 9
    assert {name: k["shared_bytes"] for name, k in found.items() if k["shared_bytes"] > SHARED_BYTES} == {}
    assert {name: k["stack_bytes"] for name, k in found.items() if k["stack_bytes"]} == {}


def test_products_run_on_tensor_cores_and_fp8_stays_fp8(kernels):
    """Tiles with 64 rows or, transposed, 64 columns take the GPU's own instruction; 32 heads that of earlier GPUs."""
    capability, found = kernels
    for name, kernel in found.items():
        own, earlier = CORES[capability]
        expected = {"attend": [earlier], "index": [own], "gemm": [own]}.get(name.split()[0], [])
        assert kernel["cores"] == expected, name
        assert kernel["fp8"] is ("fp8" in name), name


if __name__ == "__main__":
    print(json.dumps({each: compile_all(each, sys.argv[1:] == ["all"]) for each in CORES}, indent=1))
