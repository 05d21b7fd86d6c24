"""Probes of a member and of what it reads, recomputed by plain hooks in float64."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sae_sweep.analyses.probes.logistic import probe_auc
from sae_sweep.analyses.probes.tasks import Example, Task, library_task
from sae_sweep.analyses.probing import Config, run, split
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.result import Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64

LABEL = "gated-l0_3-w40-L2-s1"
ASKED = {"tasks": [], "labelled": None, "k": [1, 5], "examples": 20, "tokens": 24, "reseeds": 2, "seed": 3}


def asked(saes: list[FinishedSae], **own: object) -> Result:
    return run(Session.of(saes), saes, Config(**{**ASKED, **own}))


@pytest.mark.parametrize("name", ["prose", "identifier"])
def test_by_plain_hooks(name: str, trained: Path, llama_folder: Path) -> None:
    sae, task = in_float64(trained, LABEL), library_task(name, 20)
    found = asked([sae], tasks=[name])
    plain, tokenizer = PlainModel(llama_folder, trained), AutoTokenizer.from_pretrained(llama_folder)
    codes, raw = [], []
    for example in task.examples:
        ids = tokenizer(example.text, add_special_tokens=False)["input_ids"]
        ids = ids[-24:] if task.last else ids[:24]
        plain.tokens_RT = torch.tensor([[1, *ids]])  # the tokenizer has a BOS, so rows begin with it
        plain.counted_RT = plain.tokens_RT > 2
        x_TD = plain.activation(2)[0][-1:] if task.last else plain.activation(2)[0][1:]
        codes.append(sae.sae.encode(x_TD).mean(0))
        raw.append(x_TD.mean(0))
    x = {"codes": torch.stack(codes), "raw": torch.stack(raw)}
    labels = torch.tensor([task.labels.index(one.label) for one in task.examples])
    for k in (1, 5, None):
        aucs = {what: [] for what in x}
        for reseed in range(2):
            train = torch.from_numpy(split(task, np.random.default_rng([3, reseed])))
            for what, x_RF in x.items():
                each = [
                    probe_auc(
                        x_RF[train], (labels[train] == y).double(), x_RF[~train], (labels[~train] == y).double(), k
                    )
                    for y in labels.unique()
                ]
                aucs[what].append(np.mean(each))
        number = found.members[LABEL][f"{name} all" if k is None else f"{name} k{k}"]
        assert number.value == pytest.approx(np.mean(aucs["codes"]), abs=1e-6)
        assert number.control == pytest.approx(np.mean(aucs["raw"]), abs=1e-6)
        assert number.standard_error == pytest.approx(np.std(aucs["codes"], ddof=1) / 2**0.5, abs=1e-6)
        of_raw = found.numbers[f"{name} blocks.2.hook_resid_post raw {'all' if k is None else f'k{k}'}"]
        assert of_raw.value == number.control
        assert of_raw.standard_error == pytest.approx(np.std(aucs["raw"], ddof=1) / 2**0.5, abs=1e-6)
        assert of_raw.control != of_raw.value
    assert len(found.numbers) == 3


def test_ones_own_labels_can_be_read(trained: Path, tmp_path: Path) -> None:
    """Texts of other letters, which bytes tell; labels at random tell nothing."""
    lines = [{"text": "abc"[i % 2] * 6 + "xyz"[i % 3], "label": i % 2} for i in range(60)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = asked([in_float64(trained, LABEL)], labelled=str(file))
    assert found.members[LABEL]["mine all"].value == 1
    assert found.numbers["mine blocks.2.hook_resid_post raw all"].control < 0.9
    assert {len(series.x) for series in found.figure.series} == {3}


def test_files_are_on_one_side(trained: Path) -> None:
    task = library_task("prose", 20)
    train = split(task, np.random.default_rng(0))
    sides = [{one.source for one, side in zip(task.examples, train, strict=True) if side == which} for which in (0, 1)]
    assert not sides[0] & sides[1]
    assert 0.5 < train.mean() < 0.9


def labelled(sources: list[str]) -> Task:
    """Texts of two labels, of which each has half of the sources."""
    labels = ["a" if i < len(sources) // 2 else "b" for i in range(len(sources))]
    return Task(
        "mine",
        tuple(Example(f"{i}", label, source) for i, (label, source) in enumerate(zip(labels, sources, strict=True))),
        False,
    )


def test_both_sides_have_what_can_be_told_apart() -> None:
    """Of six sources two are left for judging, which are both of one label in two draws of five."""
    for seed in range(10):
        train = split(labelled(list("uvwxyz")), np.random.default_rng(seed))
        assert sorted(train[:3].tolist()) == sorted(train[3:].tolist()) == [False, True, True]
    for sources in ("uuuvvv", "uvwx", "uuuuuu"):
        with pytest.raises(ConfigError, match=rf"those of mine are of {len(set(sources))}, none of which leave two"):
            split(labelled(list(sources)), np.random.default_rng(0))


def test_streams_keep_their_own_numbers(trained: Path) -> None:
    """Two members at one site of two sources of tokens: what they read is named apart."""
    saes = [in_float64(trained, label) for label in (LABEL, "gated-l0_3-w40-L2-s0")]
    member = saes[1].member
    data = replace(member.config.data, seed=member.config.data.seed + 1)
    saes[1].__dict__["member"] = replace(member, config=replace(member.config, data=data))
    found = asked(saes, tasks=["prose"], k=[])
    site = "blocks.2.hook_resid_post"
    assert set(found.numbers) == {f"prose {site} of stream {number} raw all" for number in (0, 1)}
    for number, sae in enumerate(saes):
        raw = found.numbers[f"prose {site} of stream {number} raw all"]
        assert found.members[sae.label]["prose all"].control == raw.value


def test_what_cannot_be_asked(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"analysis.probing: examples must be at least 20"):
        asked([in_float64(trained, LABEL)], examples=3)
