"""Memory that does not last while members are judged, or corrected: they are in smaller parts, and alike."""

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch

from sae_sweep.config.files import config_of
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.evaluation.toy import ToyEvaluator
from sae_sweep.folder.names import STATE
from sae_sweep.host.memory import is_out_of_memory
from sae_sweep.launch.local import run_sweep
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.opening import open_group
from tests.e2e.kills import assert_same
from tests.evaluation.groups import Planned, planned, small
from tests.training.run.toy_sweeps import SHARED

MEMBERS = {
    "gated": ["sae=gated", "sae.l0=3"],
    "standard": ["sae=standard", "sae.l0=3"],
    "topk": ["sae=topk", "sae.k=3"],
    "batchtopk": ["sae=batchtopk", "sae.k=4"],
    "early": ["sae=topk", "sae.k=5", "training.tokens=1500"],
}


def refused() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes.")


def short_of_memory(monkeypatch: pytest.MonkeyPatch, evaluator: type, most: int) -> list[int]:
    """Let an evaluator run out of memory with more SAEs than `most`; how many each reading was of."""
    real: Callable[..., Any] = evaluator.evaluate  # type: ignore[attr-defined]
    readings: list[int] = []

    def evaluated(self: Any, saes: Sequence[SplicedSae], *rest: Any) -> Any:
        if len(saes) > most:
            refused()
        readings.append(len(saes))
        return real(self, saes, *rest)

    monkeypatch.setattr(evaluator, "evaluate", evaluated)
    return readings


def run(folder: Path, *overrides: str) -> tuple[Planned, set[str | None]]:
    made = planned([*SHARED, f"output_dir={folder}", *overrides], MEMBERS)
    results = open_group(made.group).run(made.folder)
    for file in made.folder.root.glob("*/config.yaml"):
        file.unlink()  # it states the output_dir
    rmtree(made.folder.root / STATE, ignore_errors=True)  # who opens a group by hand has to tidy up
    return made, {result.reason for result in results.values()}


def test_members_without_room_are_judged_in_parts_and_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the way, at milestones and at the end. What had room once is tried again, and no more."""
    expected, _ = run(tmp_path / "together", "training.milestones=[700]")
    capsys.readouterr()
    readings = short_of_memory(monkeypatch, ToyEvaluator, 2)
    made, reasons = run(tmp_path / "apart", "training.milestones=[700]")
    assert reasons == {None}
    assert_same(made.folder.root, expected.folder.root)
    assert readings[:3] == [2, 2, 1]
    assert max(readings) == 2
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "out of memory" in line]
    assert said == ["launcher.memory_gb: out of memory while judging; from here on at most 2 of 5 members together"]


def test_one_without_room_alone_is_told_of_and_its_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("evaluation.every=null", "training.checkpoint_tokens=1000", f"output_dir={tmp_path}")
    configs = list(planned([*SHARED, *overrides], {"topk": MEMBERS["topk"]}).configs.values())
    with monkeypatch.context() as patch:
        short_of_memory(patch, ToyEvaluator, 0)
        (outcome,) = run_sweep(configs)
    assert outcome.state == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith("launcher.memory_gb: topk-k_3-w40 cannot be judged, memory does not last for")
    assert [one.state for one in run_sweep(configs)] == ["finished"]


def test_rows_that_have_no_room_together_are_read_in_smaller_batches(
    tmp_path: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to a forward pass of two rows, of sixteen."""
    text_file = tmp_path / "text.txt"
    text_file.write_text(inspect.getsource(inspect))
    found = {}
    overrides = [*small(tmp_path, llama_folder, text_file), "training.batch_size=48", "training.tokens=480"]
    real = LanguageModelEvaluator._ablated
    for name, most in (("whole", 16), ("parts", 2)):

        def ablated(self: LanguageModelEvaluator, batch: Any, *rest: Any, most: int = most) -> Any:
            if len(batch.clean.tokens_RT) > most:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return real(self, batch, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(LanguageModelEvaluator, "_ablated", ablated)
            made = planned([*overrides, f"name={name}"], {"topk": MEMBERS["topk"]})
            (result,) = open_group(made.group).run(made.folder).values()
        assert result.metrics is not None, result.reason
        found[name] = result.metrics
    assert found["whole"].keys() == found["parts"].keys()
    for key, value in found["whole"].items():
        assert found["parts"][key] == (
            value if value is None or isinstance(value, str) else pytest.approx(value, rel=1e-5)
        )


def test_a_correction_without_room_looks_at_fewer_activations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = run(tmp_path / "whole")
    real = InferenceSae.margins
    looked_at: list[int] = []

    def margins(self: InferenceSae, x_BD: torch.Tensor, *rest: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "_margins":
            looked_at.append(len(x_BD))
            if len(x_BD) > 300:
                refused()
        return real(self, x_BD, *rest)

    capsys.readouterr()
    monkeypatch.setattr(InferenceSae, "margins", margins)
    made, reasons = run(tmp_path / "parts")
    assert reasons == {None}
    assert min(looked_at) > 0
    assert looked_at[:4] == [512, 512, 512, 256]
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "out of memory" in line]
    assert said[-1].endswith("from here on 256 activations at a time")
    for name in ("gated", "standard"):
        one, other = (
            json.loads((each.member_folder(name) / "metrics.json").read_text())["l0"] for each in (expected, made)
        )
        assert one == pytest.approx(other, abs=0.05)


def test_members_that_never_had_room_are_told_of_before_anything_is_written(tmp_path: Path) -> None:
    """Terabytes, which no machine gives."""
    overrides = [*SHARED, "sae=topk", "sae.k=3", "sae.width=1e12", f"output_dir={tmp_path / 'outputs'}"]
    made = config_of(overrides)
    with pytest.raises(
        ConfigError,
        match=r"launcher\.memory_gb: a pass on this machine's CPU needs .* TB .* and the machine has .*; lower",
    ):
        run_sweep([made])
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ToyEvaluator, "evaluate", judged)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_of_memory_looks_like(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


CHILD = """
import resource, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from sae_sweep.training.run import judging
from sae_sweep.training.run.opening import open_group
from tests.evaluation.groups import planned

made = planned(sys.argv[2:], {str(n): [f"seed={n}"] for n in range(4)})
run = open_group(made.group)
room, real = int(sys.argv[1]), judging.Judging.finish

def finish(self, *rest):
    if room:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)
    return real(self, *rest)

judging.Judging.finish = finish
results = run.run(made.folder)
print("reasons", sorted({str(result.reason) for result in results.values()}))
"""


def run_child(folder: Path, room: int, *overrides: str) -> str:
    """Four members, in a process that can allocate so many bytes more once it judges; 0 is no limit."""
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(room), f"output_dir={folder}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert "reasons ['None']" in done.stdout, (done.stdout + done.stderr)[-2000:]
    return done.stdout + done.stderr


@pytest.mark.evidence
def test_a_process_that_gets_no_more_memory(tmp_path: Path) -> None:
    """Each member's inference form takes 67 MB: one has room, four have not."""
    overrides = (
        *(
            "data=toy",
            "data.toy.dimensions=1024",
            "data.toy.latents=64",
            "sae=topk",
            "sae.k=8",
            "sae.width=8192",
            "training.batch_size=64",
        ),
        *("training.tokens=128", "data.block_rows=4", "evaluation.tokens=128", "tracking=none", "model.device=cpu"),
    )
    assert "out of memory while judging" not in run_child(tmp_path, 0, "name=free", *overrides)
    said = run_child(tmp_path, 170_000_000, "name=small", *overrides)
    assert "out of memory while judging; from here on at most " in said
    for root in (tmp_path / "free", tmp_path / "small"):
        for file in root.glob("*/config.yaml"):
            file.unlink()
        (root / "sweep.json").unlink()
        rmtree(root / STATE, ignore_errors=True)
    assert_same(tmp_path / "small", tmp_path / "free")
