"""A sweep of a model that is partly on the disk: trained, judged, opened and asked as one that is in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.config.files import config_of
from sae_sweep.launch.local import run_sweep
from tests.config.every_key_places import DEVICE_MAP, ON_DISK
from tests.conftest import VOCABULARY

MAP = dict(each.split(":") for each in DEVICE_MAP.strip("{}").split(","))
SMALL = """
    name=spread model=local model.device=cpu site.layer=1 data=tokens data.context=16 data.block_rows=32
    data.rows_per_forward=16 evaluation.tokens=160 evaluation.later_sites=1 sae=topk sae.k=5 sae.width=40
    training.tokens=640 training.batch_size=64 training.objective=e2e_downstream tracking=none
"""


def test_it_is_all_the_same(llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last bit, with an objective that goes through the blocks on the disk and back."""
    tokens_RT = torch.randint(3, VOCABULARY, (200, 16), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "ids.npy", tokens_RT.numpy())
    found: list[Path] = []
    for where, device_map in (("plain", None), ("spread", MAP)):
        own = {"model.path": llama_folder, "data.path": tmp_path / "ids.npy", "output_dir": tmp_path / where}
        asked = [*SMALL.split(), *(f"{key}={path}" for key, path in own.items())]
        config = config_of([*asked, f"model.device_map={json.dumps(device_map)}"])
        (outcome,) = run_sweep([config])
        assert outcome.state == "finished", outcome.reason
        found.append(outcome.folder)
    plain, there = found
    assert plain.name == there.name
    weights, same = (load_file(folder / "sae_weights.safetensors") for folder in found)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert json.loads((plain / "metrics.json").read_text()) == json.loads((there / "metrics.json").read_text())
    opened = [ss.load(folder) for folder in found]
    models = [sae.model() for sae in opened]
    assert {name for name, each in models[1].module.named_parameters() if each.is_meta} == {
        name for name, _ in models[0].module.named_parameters() if name.startswith(ON_DISK)
    }
    steered = []
    for sae, model in zip(opened, models, strict=True):
        with sae.steer(model, {3: 8.0}):
            steered.append(model(tokens_RT[:2]))
    assert torch.equal(*steered)
    capsys.readouterr()
    assert cli.main(["eval", str(there), "model.device_map=null"]) == 0
    assert cli.main(["eval", str(plain)]) == 0
    again, once = (line for line in capsys.readouterr().out.splitlines() if "ce_recovered" in line)
    assert again == once
