"""What members keep of the first block of their stream: who judges them again does not have the model read it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.activations.outliers import Guard
from sae_sweep.activations.stored import StoredStream
from sae_sweep.activations.stream import ActivationStream
from sae_sweep.training.run.sources import LanguageModelSource

HOOK = "blocks.2.hook_resid_post"
X = torch.tensor(1.0)
"""In single precision, which none is kept in."""


@pytest.fixture
def folder(sweep: ss.Sweep, tmp_path: Path) -> Path:
    """A copy: what is judged anew is written beside members."""
    return Path(shutil.copytree(sweep.folder, tmp_path / "mine"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks of activations that are read from here on."""
    indices = list[int]()
    for kind in (ActivationStream, StoredStream):
        whole: Any = kind._whole_block

        def noted(self: Any, index: int, whole: Any = whole) -> Any:
            indices.append(index)
            return whole(self, index)

        monkeypatch.setattr(kind, "_whole_block", noted)
    return indices


def judged(folder: Path) -> dict[str, Any]:
    """By member what `eval` writes; nothing of it stays."""
    assert cli.main(["eval", str(folder)]) == 0
    found = {file.parents[1].name: json.loads(file.read_text()) for file in folder.glob("*/eval/*.json")}
    for place in (*folder.glob("*/eval"), folder / "eval"):
        shutil.rmtree(place)
    return found


def test_what_is_kept(sweep: ss.Sweep) -> None:
    """The mean and five times the median norm of the first block's activations, in every digit."""
    sae = sweep["topk-l0_8-w256"]
    x_BD = LanguageModelSource(sae.home.config, (HOOK,)).block(0).activations[HOOK]
    kept = load_file(sae.home.folder / "first_block.safetensors")
    assert kept.keys() == {f"mean {HOOK}", f"largest_norm {HOOK}"}
    assert kept[f"largest_norm {HOOK}"].item() == 5 * x_BD.norm(dim=1).median().item()
    torch.testing.assert_close(kept[f"mean {HOOK}"], x_BD.double().mean(0), rtol=1e-12, atol=1e-14)


def test_judged_without_a_block(folder: Path, read: list[int]) -> None:
    """To the last digit as training did, and as without what is kept, when the block is read again."""
    own = {file.parent.name: json.loads(file.read_text()) for file in folder.glob("*/metrics.json")}
    assert judged(folder) == own
    assert cli.main(["eval", str(folder), "--analysis", "positions"]) == 0
    sweep = ss.open(folder)
    assert (ss.evaluate(sweep)["ce_recovered_mean"] == sweep.frame()["ce_recovered_mean"]).all()
    assert sweep["topk-l0_8-w256"].top_contexts(3).density >= 0
    assert not read
    files = list(folder.glob("*/first_block.safetensors"))
    files[0].write_bytes(b"damaged")
    files[1].unlink()
    save_file({f"mean {HOOK}": torch.full((128,), torch.nan).double(), f"largest_norm {HOOK}": X}, files[2])
    save_file({f"mean {HOOK}": torch.ones(3).double(), f"largest_norm {HOOK}": -X}, files[3])
    assert judged(folder) == own
    assert set(read) == {0}


def test_another_site_is_measured(folder: Path, read: list[int]) -> None:
    assert cli.main(["eval", str(folder), "site.layer=1"]) == 0
    assert set(read) == {0}


def test_what_is_known_is_not_measured() -> None:
    """But where one site is not known all are, and what training counted still decides."""
    blocks = list[int]()

    def first() -> Any:
        blocks.append(0)
        return type("B", (), {"index": 0, "activations": {"a": torch.eye(2), "b": torch.eye(2)}})()

    assert Guard(3.0, first, ("a",), {"a": 2.5, "b": 1.0}).largest_norms == {"a": 2.5}
    assert not blocks
    assert Guard(3.0, first, ("a", "b"), {"a": 2.5}).largest_norms == {"a": 2.5, "b": 3.0}
    assert blocks == [0]
    assert Guard(None, first, ("a",), {"a": 2.5}).largest_norms == {}
