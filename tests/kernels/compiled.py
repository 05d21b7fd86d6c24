"""Compile every kernel to machine code, which needs no GPU; run by test_triton.py without the interpreter.

Argument: the compute capability, times ten. Prints the name of each kernel and variant that compiled, with its
registers, bytes that spill and bytes of shared memory.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae_sweep.kernels.cuda import halving, listing, selection, sparse, updating

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
INTEGERS = {torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64"}
SPARSE = (sparse._row_sums, sparse._products, sparse._row_sum_pairs, sparse._pairs)


def variants() -> list[tuple[object, dict[str, str], dict[str, object]]]:
    """Kernels, with the types of their pointers and the values of their constants."""
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        names = ("table", "weight", "other", "out", "out_of_other", "left", "right")
        floats = dict.fromkeys(names, f"*{NAMES[dtype]}")
        indices = {"index": "*i64", "offsets": "*i64"}
        constants = {
            "ENTRIES": sparse.ENTRIES,
            "COLUMNS": sparse.COLUMNS,
            "SUM": sparse._sum_dtype(torch.empty(0, dtype=dtype)),
        }
        found += [(kernel, {**floats, **indices}, constants) for kernel in SPARSE]
    for dtype in (torch.bfloat16, torch.float32):
        layout = selection._FORMATS[dtype]
        state = dict.fromkeys(("columns", "counts", "cut", "rank"), "*i64")
        pointers = {**state, **dict.fromkeys(("bits", "smallest", "answer"), INTEGERS[layout.integer])}
        constants = {"KEY": layout.key, "BITS": layout.bits, "INFINITY": layout.infinity, "BLOCK": selection.BLOCK}
        found.append((selection._row_top, pointers, constants))
        found.append((selection._count_digits, pointers, {**constants, "SHIFT": 8}))
        found.append((selection._pick_digit, pointers, {**constants, "SHIFT": 0}))
        of_lists = {**dict.fromkeys(("values", "floor", "out"), f"*{NAMES[dtype]}"), "counts": "*i64"}
        of_lists |= dict.fromkeys(("offsets", "columns"), "*i32")
        found += [
            (kernel, of_lists, {"BLOCK": listing.BLOCK}) for kernel in (listing._count_above, listing._write_above)
        ]
    for width in (2304, 3072):
        found += updates(width)
    return found


def updates(width: int) -> list[tuple[object, dict[str, str], dict[str, object]]]:
    """Those of rows of such a width, in fp32."""
    tensors = ("table", "weight", "factor", "subtracted", "added", "rows", "first", "second", "scale", "out")
    pointers = {**dict.fromkeys(tensors, "*fp32"), **dict.fromkeys(("index", "offsets", "lost"), "*i32")}
    pointers |= dict.fromkeys(("rate", "beta1", "beta2", "eps", "root"), "fp32")
    block = triton.next_power_of_2(width)
    constants = {"SUBTRACTS": True, "ADDS": False, "BLOCK": block, "SUM": tl.float32, "UNIT": True}
    halved = {"rows": "*fp32", "out": "*fp16", "norms": "*fp32"}
    made = [(kernel, pointers, constants) for kernel in (updating._row_norms, updating._update_row)]
    return [*made, (halving._half_row, halved, {"BLOCK": block})]


BY_ROW = (updating._row_norms, updating._update_row, halving._half_row)


def used(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of it that spill."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([TOOL, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said.stdout)
    return int(found[1]), int(found[2]) + int(found[3])


def main() -> None:
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for kernel, pointers, constants in variants():
        types, values = {}, {}
        for parameter in kernel.params:
            if parameter.is_constexpr:
                types[parameter.name], values[parameter.name] = "constexpr", constants[parameter.name]
            else:
                types[parameter.name] = pointers.get(parameter.name) or parameter.annotation_type or "i32"
        warps = updating.warps(constants["BLOCK"]) if kernel in BY_ROW else 8
        compiled = triton.compile(ASTSource(kernel, types, values), target=target, options={"num_warps": warps})
        print(kernel.__name__, *used(compiled.asm["cubin"]), compiled.metadata.shared)


if __name__ == "__main__":
    main()
