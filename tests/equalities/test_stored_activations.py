"""stored == streamed: an SAE of activations that were kept is the one trained from the model, bit for bit."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.cli import main
from sae_sweep.config.files import config_of
from sae_sweep.data.positions import counted_positions
from sae_sweep.folder.names import WEIGHTS
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model

HOOK = "blocks.1.hook_resid_post"
ROWS, CONTEXT, FORWARD = 40, 16, 4


def test_an_sae_of_stored_activations_is_the_one_of_the_model(llama_folder: Path, tmp_path: Path) -> None:
    model_config = config_of({"model": "local", "model.path": str(llama_folder)}).model
    model = load_model(model_config)
    generator = np.random.default_rng(0)
    tokens_RT = generator.integers(0, model.facts.vocab_size, (ROWS, CONTEXT), dtype=np.int32)
    np.savez(tmp_path / "rows.npz", tokens=tokens_RT)
    ids_RT = torch.from_numpy(tokens_RT).long()
    counted_RT = counted_positions(ids_RT, model.special_ids, model.bos_id)
    kept = tmp_path / "kept"
    kept.mkdir()
    for number, first in enumerate(range(0, ROWS, FORWARD)):
        rows = slice(first, first + FORWARD)
        with torch.no_grad():
            x_RTD = harvest(model, ids_RT[rows], [HOOK])[HOOK]
        about = {"tokens": ids_RT[rows], "counted": counted_RT[rows].to(torch.uint8)}
        save_file({"activations": x_RTD, **about}, kept / f"{number:03}.safetensors")

    asked = (
        f"sae=gated,topk sae.l0=4 sae.width=32 training.tokens=2000 training.batch_size=50 data.context={CONTEXT}"
        f" data.block_rows=8 data.rows_per_forward={FORWARD} evaluation.tokens=64 tracking=none output_dir={tmp_path}"
    ).split()
    model_of = f"name=streamed model=local model.path={llama_folder} site.layer=1 data=tokens"
    assert main([*model_of.split(), f"data.path={tmp_path}/rows.npz", *asked]) == 0
    assert main(["name=stored", "data=activations", f"data.path={kept}", *asked]) == 0
    told = (tmp_path / "stored" / "report.html").read_text(encoding="utf-8")
    assert "They were read from files as some model left them" in told
    assert "true latents, which are random directions" not in told
    members = sorted(file.parent.name for file in (tmp_path / "stored").glob(f"*/{WEIGHTS}"))
    assert len(members) == 2
    for member in members:
        streamed, stored = (load_file(tmp_path / name / member / WEIGHTS) for name in ("streamed", "stored"))
        assert streamed.keys() == stored.keys()
        assert all(streamed[name].equal(stored[name]) for name in streamed), member
