"""How large a machine is."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.host import machine


def test_a_container_has_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_LIMITS", (limit,))
    for said, expected in ((None, whole), ("max\n", whole), ("1048576\n", 2**20), (str(2**63), whole)):
        if said is not None:
            limit.write_text(said)
        assert machine.host_bytes() == expected


@pytest.mark.parametrize(("said", "expected"), [("81559\n40960\n", 40960 * 2**20), ("[N/A]\n", None), ("", None)])
def test_the_smallest_gpu(said: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    assert machine.gpu_bytes() == expected


def test_a_machine_without_gpus_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", run)
    assert machine.gpu_bytes() is None


def test_cores_where_a_process_is_not_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()
