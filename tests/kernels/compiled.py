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

from sae_sweep.kernels.cuda import gathering, halving, listing, ranking, selection, sparse, updating
from sae_sweep.kernels.cuda.digits import FORMATS
from sae_sweep.kernels.halved import EXPONENT, UNIT, Format

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
        layout = FORMATS[dtype]
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
        digits = {name: value for name, value in constants.items() if name != "BLOCK"}
        found += [
            (ranking._row_smallest, pointers, {**digits, "WHOLE": whole, "BLOCK": block})
            for whole, block in ((True, ranking.WHOLE // dtype.itemsize), (False, selection.BLOCK))
        ]
        lists = {"offsets": "*i32", "columns": "*i32", "kept": "*i8", "bits": INTEGERS[layout.integer]}
        found.append((ranking._keep_largest, lists, {**digits, "BLOCK": listing.LISTED}))
    lists = {**dict.fromkeys(("offsets", "column", "ends", "columns"), "*i32"), "kept": "*i8", "counts": "*i64"}
    lists |= dict.fromkeys(("value", "out"), "*fp32")
    found += [(kernel, lists, {"BLOCK": listing.LISTED}) for kernel in (listing._count_kept, listing._write_kept)]
    for width in (2304, 3072):
        found += updates(width)
    return found


def updates(width: int) -> list[tuple[object, dict[str, str], dict[str, object]]]:
    """Those of rows of such a width, in fp32."""
    tensors = ("table", "weight", "factor", "subtracted", "added", "rows", "first", "second", "scale", "out")
    pointers = {**dict.fromkeys(tensors, "*fp32"), **dict.fromkeys(("index", "offsets"), "*i32"), "lost": "*i8"}
    pointers |= dict.fromkeys(("rate", "beta1", "beta2", "eps", "root"), "fp32")
    block = triton.next_power_of_2(width)
    constants = {"SUBTRACTS": True, "ADDS": False, "BLOCK": block, "SUM": tl.float32, "UNIT": True}
    made = [(kernel, pointers, constants) for kernel in (updating._row_norms, updating._update_row)]
    of = Format(torch.float16)
    fixed = {"ROUNDOFF": of.roundoff, "SPACING": of.spacing, "UNIT": UNIT, "BLOCK": block}
    fixed |= {"MOST": of.most, "LOST": of.lost(width), "EXPONENT": EXPONENT}
    fixed |= dict.fromkeys(("BIAS", "PRE", "FLOOR"), True)
    halved = {**dict.fromkeys(("rows", "bias", "pre", "floor", "offsets", "largest", "scale"), "*fp32"), "out": "*fp16"}
    halved |= {"member": "*i32", "per": "fp32", "inputs": "*bf16"}
    made += [(kernel, halved, fixed) for kernel in (halving._half_row, halving._half_input)]
    gathered = {**dict.fromkeys(("table", "rows", "weight", "products", "out"), "*fp32"), "order": "*i64"}
    gathered |= {"index": "*i32", "offsets": "*i32"}
    made.append((gathering._products_and_sums, gathered, {"BLOCK": block, "SUM": tl.float32}))
    fixed = {"SHARED": True, "ENTRIES": sparse.ENTRIES, "COLUMNS": sparse.COLUMNS, "SUM": tl.float32}
    decoded = {
        **dict.fromkeys(("rows", "weight", "bias", "target", "out"), "*fp32"),
        "index": "*i32",
        "offsets": "*i32",
    }
    return [*made, (gathering._errors, decoded, fixed)]


BY_ROW = (
    *(updating._row_norms, updating._update_row, halving._half_row, halving._half_input),
    gathering._products_and_sums,
)


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
        warps = 16 if constants.get("WHOLE") else 4 if constants.get("BLOCK") == listing.LISTED else warps
        compiled = triton.compile(ASTSource(kernel, types, values), target=target, options={"num_warps": warps})
        print(kernel.__name__, *used(compiled.asm["cubin"]), compiled.metadata.shared)


if __name__ == "__main__":
    main()
