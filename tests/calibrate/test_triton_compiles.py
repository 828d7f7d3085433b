"""Our Triton kernels compile for a Hopper GPU on a machine without one: tensor cores, shared memory, FP8.

Run as a program it compiles and prints; the test does so in a process of its own, without the interpreter.
"""

# ruff: noqa: PLC0415 (triton is imported in a process of its own, where nothing has chosen the interpreter)

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs triton: pip install 'tokenworks[kernels]'")

SHARED_BYTES = 227 * 1024
"""Shared memory of one block on compute capability 9.0 (CUDA C++ programming guide, technical specifications)."""


def compile_all():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from calibrate.kernels import triton_attention as attention
    from calibrate.kernels import triton_gemm as gemm

    def build(kernel, pointers, numbers, constants, **options):
        names = kernel.arg_names
        types = {name: f"*{kind}" for name, kind in pointers.items()} | numbers
        signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        aligned = [
            n for n in names if signature[n].startswith("*") or n in ("n", "k", "heads", "width", "chunk")
        ]
        source = ASTSource(
            kernel,
            signature,
            {(names.index(name),): value for name, value in constants.items()},
            {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        )
        made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        cores = [core for core in ("wgmma.mma_async", "mma.sync") if core in made.asm["ptx"]]
        return {"shared_bytes": made.metadata.shared, "cores": cores, "fp8": "e4m3" in made.asm["ptx"]}

    widths = {"WIDEN": False, "KEYS": 64, "LATENT": 512, "ROPE": 64, "ENTRY": 656, "GROUP": 128}
    found = {}
    for heads in (16, 64):
        for name, cache in (
            ("bf16", ("bf16",) * 3),
            ("fp8", ("fp8e4nv",) * 3),
            ("packed", ("fp8e4nv", "fp32", "bf16")),
        ):
            pointers = dict(zip(("entries", "scales", "ropes"), cache, strict=True))
            pointers |= {"q": "bf16", "index": "i32", "lengths": "i32", "parts": "fp32", "logs": "fp32"}
            constants = widths | {"HEADS": heads, "SPARSE": name == "packed", "PACKED": name == "packed"}
            found[f"attend {name} {heads}"] = build(
                attention._attend, pointers, {"scale": "fp32"}, constants, **attention.schedule(heads)
            )
    pointers = {
        "q": "fp8e4nv",
        "keys": "fp8e4nv",
        "factors": "fp32",
        "weights": "fp32",
        "pages": "i32",
        "logits": "fp32",
    }
    paged = {"PAGED": True, "HEADS": 64, "DIM": 128, "KEYS": 64, "ENTRY": 132}
    found["index"] = build(attention._index, pointers, {}, paged)
    tables = {"tile_group": "i32", "tile_start": "i32", "tile_end": "i32"}
    for rows in (gemm.FEWEST_ROWS, gemm.MOST_ROWS):
        pointers = {
            "x": "fp8e4nv",
            "x_scales": "fp32",
            "w": "fp8e4nv",
            "w_scales": "fp32",
            "output": "bf16",
            **tables,
        }
        grouped = {"GROUPED": True, "SCALED": True, "WIDEN": False, "ROWS": rows, "BLOCK": 128}
        found[f"gemm {rows}"] = build(gemm._gemm, pointers, {}, grouped)
    from calibrate.kernels import triton_quantize as quantize

    pointers = {"x": "bf16", "values": "fp8e4nv", "scales": "fp32", "counts": "i32"}
    gated = {"GATED": True, "SCALED": True, "PACKED": False, "MASKED": True, "LIMIT": 448.0, "MANTISSA": 23}
    for configuration in quantize.CONFIGURATIONS:
        made = {**configuration}
        constants = gated | {"BLOCK": 128, "GROUPS": 4, "ROWS": made.pop("ROWS")}
        found[f"quantize {constants['ROWS']}"] = build(quantize._quantize, pointers, {}, constants, **made)
    return found


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    done = subprocess.run(
        [sys.executable, __file__], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_kernel_fits_into_a_hopper_blocks_shared_memory(kernels):
    assert len(kernels) == 10
    assert {name: k["shared_bytes"] for name, k in kernels.items() if k["shared_bytes"] > SHARED_BYTES} == {}


def test_products_run_on_tensor_cores_and_fp8_stays_fp8(kernels):
    """Tiles of 64 rows take Hopper's own instruction, of 16 rows the one of earlier GPUs."""
    for name, kernel in kernels.items():
        expected = [] if name == "quantize" else ["mma.sync"] if name.endswith("16") else ["wgmma.mma_async"]
        assert kernel["cores"] == expected, name
        assert kernel["fp8"] is ("bf16" not in name), name


if __name__ == "__main__":
    print(json.dumps(compile_all()))
