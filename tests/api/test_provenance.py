"""provenance.json says by which command, on what and where a member came to be, with no null that was decided."""

import json
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

import torch

import sae_sweep as ss
from sae_sweep.plan.fingerprints import digests


def test_of_every_member(sweep: ss.Sweep) -> None:
    for label in sweep:
        folder = sweep.folder / label
        found = json.loads((folder / "provenance.json").read_text())
        config, sae = found["config"], sweep[label]
        assert (config["sae"]["width"], config["sae"]["expansion"]) == (256, 2.0)
        assert (config["site"]["hook"], config["model"]["d_model"]) == ("blocks.2.hook_resid_post", 128)
        assert config["training"]["lr"] == 6e-3
        assert None not in [config["training"][key] for key in ("beta1", "eps", "clip", "lr_warmup_steps")]
        if label.startswith("topk"):
            assert (config["sae"]["k"], config["sae"]["auxk"]) == (sae.inference.form.k, 64)
        assert found["versions"]["torch"] == torch.__version__
        assert found["versions"]["sae-sweep"] == ss.__version__
        assert found["device"] == "cpu"
        seconds = (datetime.fromisoformat(found["ended"]) - datetime.fromisoformat(found["started"])).total_seconds()
        assert 0 <= abs(seconds - found["wall_seconds"]) <= 1
        text = Path(config["data"]["path"])
        (about,) = found["content"]["data.path"]["files"].values()
        assert about["bytes"] == text.stat().st_size
        assert about["hash"] == blake2b(text.read_bytes(), digest_size=16).hexdigest()
        assert "model.safetensors" in found["content"]["model.path"]["files"]
        assert "tokenizer.json" in found["content"]["model.path (its tokenizer)"]["files"]
        card = json.loads((folder / "cfg.json").read_text())["metadata"]["content"]
        assert card == digests(found["content"])
        assert set(card) == {"model.path", "model.path (its tokenizer)", "data.path"}
