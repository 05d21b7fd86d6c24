"""Trained on cached activations == trained on streamed ones, for a sweep over sites and architectures."""

import json
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.launch.local import Outcome, run_sweep
from sae_sweep.model import together
from sae_sweep.model.harvest import harvest
from tests.evaluation.groups import small

MEMBERS = [
    ["sae=standard", "sae.l1=0.3", "sae.decoder_init=data"],
    ["sae=gated", "sae.l0=6", "site.layer=1"],
    ["sae=batchtopk", "sae.k=5", "site=mlp_out", "data.max_norm_ratio=2"],  # a stream that drops outliers
    ["sae=topk", "sae.k=5", "training.tokens=2000", "training.batch_size=48", "sae.lookup=learned"],
]


@dataclass
class Passes:
    """Forward passes for activations of rows."""

    count: int = 0


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    made, real = Passes(), harvest

    def counted(model: Any, tokens_RT: Any, hooks: Any) -> Any:
        made.count += tokens_RT.shape[1] == 16  # not the pairs that a lookup begins with
        return real(model, tokens_RT, hooks)

    monkeypatch.setattr(together, "harvest", counted)
    return made


@pytest.fixture
def configs(llama_folder: Path, tmp_path: Path) -> list[MemberConfig]:
    words = random.Random(0)
    documents = ["".join(words.choice("abcdefgh \n") for _ in range(90)) for _ in range(30)]
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    shared = [
        *small(tmp_path / "outputs", llama_folder, text),
        *("site.layer=2", "training.batch_size=40", "training.tokens=3000", "training.lr=1e-2"),
    ]
    return [config_of([*shared, *own]) for own in MEMBERS]


def run(configs: list[MemberConfig], name: str, cache: Path | None) -> list[Outcome]:
    kept = None if cache is None else str(cache)
    outcomes = run_sweep([replace(one, name=name, data=replace(one.data, cache=kept)) for one in configs])
    assert [outcome.reason for outcome in outcomes] == [None] * len(configs)
    return outcomes


def test_a_sweep_that_writes_and_one_that_reads(
    configs: list[MemberConfig], tmp_path: Path, passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    counts, sweeps = [], []
    for name, cache in (("streamed", None), ("writes", tmp_path / "cache"), ("reads", tmp_path / "cache")):
        passes.count = 0
        sweeps.append(run(configs, name, cache))
        counts.append(passes.count)
    streamed, *others = sweeps
    assert counts[0] == counts[1] > counts[2] == 0  # no block is read twice
    for cached in others:
        for one, expected in zip(cached, streamed, strict=True):
            assert (one.label, one.identity) == (expected.label, expected.identity)
            files = sorted(path.name for path in expected.folder.iterdir())
            assert sorted(path.name for path in one.folder.iterdir()) == files
            for name in (name for name in files if name.endswith(".safetensors")):
                before, after = load_file(expected.folder / name), load_file(one.folder / name)
                assert before.keys() == after.keys()
                assert all(torch.equal(before[key], after[key]) for key in before), (one.label, name)
            for name in ("metrics.json", "metrics.jsonl"):
                assert (one.folder / name).read_text() == (expected.folder / name).read_text()
    announced = [int(found) for found in re.findall(r"keeps about (\d+) blocks", caplog.text)]
    (folder,) = (tmp_path / "cache").iterdir()  # of both streams, since dropping comes after reading
    assert announced == [8, 7]  # 75 steps, 11 a block, and one block to correct the gated member's L0 on
    kept = [len(list(folder.glob(f"*-blocks.{site}.safetensors"))) for site in ("1.hook_resid_post", "2.hook_mlp_out")]
    assert kept == [8, 7]
