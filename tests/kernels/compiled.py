"""Compile every kernel to machine code, which needs no GPU; run by test_triton.py without the interpreter.

Argument: the compute capability, times ten. Prints the name of each kernel and variant that compiled.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae_sweep.kernels.cuda import selection as selection
from sae_sweep.kernels.cuda import sparse as sparse

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
INTEGERS = {torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64"}


def variants() -> list[tuple[object, dict[str, str], dict[str, object]]]:
    """Kernels, with the types of their pointers and the values of their constants."""
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        floats = dict.fromkeys(("table", "weight", "out", "left", "right"), f"*{NAMES[dtype]}")
        indices = {"index": "*i64", "offsets": "*i64"}
        constants = {
            "ENTRIES": sparse.ENTRIES,
            "COLUMNS": sparse.COLUMNS,
            "SUM": sparse._sum_dtype(torch.empty(0, dtype=dtype)),
        }
        found += [(kernel, {**floats, **indices}, constants) for kernel in (sparse._row_sums, sparse._products)]
    for dtype in (torch.bfloat16, torch.float32):
        layout = selection._FORMATS[dtype]
        state = dict.fromkeys(("columns", "counts", "cut", "rank"), "*i64")
        pointers = {**state, **dict.fromkeys(("bits", "smallest", "answer"), INTEGERS[layout.integer])}
        constants = {"KEY": layout.key, "BITS": layout.bits, "INFINITY": layout.infinity, "BLOCK": selection.BLOCK}
        found.append((selection._row_top, pointers, constants))
        found.append((selection._count_digits, pointers, {**constants, "SHIFT": 8}))
        found.append((selection._pick_digit, pointers, {**constants, "SHIFT": 0}))
    return found


def main() -> None:
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for kernel, pointers, constants in variants():
        types, values = {}, {}
        for parameter in kernel.params:
            if parameter.is_constexpr:
                types[parameter.name], values[parameter.name] = "constexpr", constants[parameter.name]
            else:
                types[parameter.name] = pointers.get(parameter.name) or parameter.annotation_type or "i32"
        compiled = triton.compile(ASTSource(kernel, types, values), target=target, options={"num_warps": 8})
        assert compiled.asm["cubin"]
        print(kernel.__name__)


if __name__ == "__main__":
    main()
