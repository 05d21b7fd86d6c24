"""Judging from Python, against what the sweep wrote of the same members on the same tokens."""

import json

import pytest
import torch
from torch import nn

import sae_sweep as ss
from sae_sweep.evaluation.metrics import METRICS


def test_members_are_judged_to_the_last_digit_as_in_their_sweep(sweep):
    found = ss.evaluate(list(sweep.values()))
    assert set(found.index) == set(sweep)
    for label in sweep:
        metrics = json.loads((sweep.folder / label / "metrics.json").read_text())
        judged = found.loc[label].to_dict()
        assert len(judged) > 20
        assert {key: metrics[key] for key in judged} == judged
        assert set(judged) < set(METRICS)


class Plain(nn.Module):
    """A TopK SAE written by somebody else: no name of a parameter is ours."""

    def __init__(self, sae):
        super().__init__()
        self.up, self.down = nn.Linear(128, 256), nn.Linear(256, 128)
        self.up.weight.data, self.up.bias.data = sae.W_enc.T.clone(), sae.b_enc - sae.b_dec @ sae.W_enc
        self.down.weight.data, self.down.bias.data = sae.W_dec.T.clone(), sae.b_dec.clone()

    def encode(self, x):
        pre = self.up(x)
        top = pre.topk(8, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())

    def decode(self, codes):
        return self.down(codes)


def test_a_module_of_another_kind_is_judged_beside_ours(sweep):
    sae = sweep["topk-l0_8-w256"]
    found = ss.evaluate([sae, Plain(sae)], hook=sae.cfg.hook_name)
    ours, theirs = found.loc["topk-l0_8-w256"], found.loc["Plain"]
    for key in ("l0", "l1", "mse", "ce_sae", "kl", "alive"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-4)


def test_other_tokens_are_read_where_they_are_given(sweep, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 2000)
    data = ["data=text", f"data.path={text}", "data.context=32", "evaluation.tokens=500"]
    sae = sweep["topk-l0_8-w256"]
    found = ss.evaluate([sae], data=data).iloc[0]
    assert 400 < found["tokens_evaluated"] < 600
    assert found["ce_clean"] != json.loads((sae.home.folder / "metrics.json").read_text())["ce_clean"]


def test_what_cannot_be_judged_is_told_in_a_line(sweep):
    sae = sweep["topk-l0_8-w256"]
    model = sae.model()
    with pytest.raises(ss.ConfigError, match="give model="):
        ss.evaluate([Plain(sae)])
    with pytest.raises(ss.ConfigError, match="give data="):
        ss.evaluate([Plain(sae)], model=model)
    with pytest.raises(ss.ConfigError, match="does not say its hook"):
        ss.evaluate([Plain(sae)], model=model, data=["data=demo"])
    with pytest.raises(ss.ConfigError, match="has no encode and decode"):
        ss.evaluate([nn.Linear(1, 1)], model=model, data=["data=demo"], hook=sae.cfg.hook_name)
    with pytest.raises(ss.ConfigError, match="no SAE is given"):
        ss.evaluate([])
    with pytest.raises(ss.ConfigError, match="training did not read"):
        ss.evaluate([sae], data=["evaluation.tokens=1e6"])
