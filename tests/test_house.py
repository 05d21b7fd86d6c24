"""The rules of the house, read from its source: who may import whom, and how large a file and a function may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sae_sweep"

FLOORS = (
    "cli", "api", "launch", "reporting", "analyses", "training", "tracking", "interop", "evaluation",
    "activations", "folder", "plan", "data", "model", "maths", "saes", "kernels", "config", "architectures",
    "names", "host", "errors",
)  # fmt: skip
"""From the top; a room imports from rooms below it alone. The equations of an architecture stand above the bank, which
knows its facts alone; names of files are facts that all may know."""
LOOSE = {"__init__.py", "cli.py", "errors.py"}
LINES, FUNCTION_LINES = 300, 45


@cache
def modules() -> tuple[tuple[str, Path], ...]:
    """Every module of ours and its file."""
    return tuple(
        (".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), file)
        for file in PACKAGE.rglob("*.py")
    )


def floor(module: str) -> int | None:
    """Where a module stands; None for the package itself, which is the way in."""
    places = module.split(".")[1:]
    if not places:
        return None
    if places[0] == "architectures" and places[-1] not in ("architectures", "base", "facts", "prefixes", "recipe"):
        return FLOORS.index("maths")
    return FLOORS.index("names" if places[:2] == ["folder", "names"] else places[0])


@cache
def imported(file: Path) -> tuple[str, ...]:
    """The modules that a file imports; of ours, not the names in them."""
    return tuple(_imported(file))


def _imported(file: Path) -> Iterator[str]:
    ours = dict(modules())
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{name.name}" for name in node.names)
            yield from (name if name in ours else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_imports_go_down() -> None:
    upward = [
        f"{module} imports {other}"
        for module, file in modules()
        for other in imported(file)
        if other.startswith("sae_sweep") and None not in (here := floor(module), there := floor(other)) and there < here
    ]
    assert not upward


def test_every_file_is_in_a_room() -> None:
    assert {file.name for file in PACKAGE.glob("*.py")} == LOOSE


def test_only_launch_knows_hydra() -> None:
    knowing = {module for module, file in modules() if any(name.split(".")[0] == "hydra" for name in imported(file))}
    assert {".".join(module.split(".")[:3]) for module in knowing} <= {"sae_sweep.launch.hydra"}


def test_the_bank_knows_kernels_and_facts_alone() -> None:
    known = {
        name.split(".")[1]
        for module, file in modules()
        if module.startswith("sae_sweep.saes.")
        for name in imported(file)
        if name.startswith("sae_sweep.")
    }
    assert known <= {"saes", "kernels", "architectures", "host"}


@pytest.mark.parametrize("folder", ["sae_sweep"])
def test_a_file_has_one_noun(folder: str) -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in (ROOT / folder).rglob("*.py")
        if (lines := file.read_text(encoding="utf-8").count("\n")) > LINES
    }
    assert not long


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{module}.{node.name}: {lines} lines"
        for module, file in modules()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long


def test_what_stands_above_a_worker_brings_in_no_torch() -> None:
    above = [
        module
        for module, _ in modules()
        if module.split(".")[1:2] in (["config"], ["plan"], ["folder"], ["launch"], ["cli"], ["errors"])
        and "plugin" not in module
        and not module.startswith(("sae_sweep.launch.clusters", "sae_sweep.launch.hydra"))
    ]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {above!r}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
