"""A TopK SAE at other numbers of latents than its own."""

import pytest
import torch

import sae_sweep as ss
from sae_sweep.errors import ConfigError


def test_the_largest_of_its_codes_stay(sweep: ss.Sweep) -> None:
    sae = sweep.best(architecture="topk", l0=8)
    x_BD = sae.b_dec + 5 * torch.randn(20, sae.cfg.d_in, generator=torch.Generator().manual_seed(0))
    for k in (1, 3, 8):
        f_BF, whole_BF = sae.at(k).encode(x_BD), sae.encode(x_BD)
        assert (f_BF > 0).sum(1).tolist() == [k] * 20
        largest = whole_BF.topk(k, dim=1)
        assert torch.equal(f_BF, torch.zeros_like(whole_BF).scatter(1, largest.indices, largest.values))
    assert sae.at(3).W_dec.data_ptr() == sae.W_dec.data_ptr()
    assert (sae.encode(x_BD) > 0).sum(1).tolist() == [8] * 20, "it is what it was"


@pytest.mark.parametrize(
    ("architecture", "k", "words"),
    [
        ("gated", 3, r"at\(3\): of gated SAEs thresholds decide how many latents fire"),
        ("topk", 300, r"at\(300\): k=300 is more than its 256 latents"),
        ("topk", 0, r"at\(0\): k=0 is not a whole number above 0"),
    ],
)
def test_what_has_no_such_number(architecture: str, k: int, words: str, sweep: ss.Sweep) -> None:
    with pytest.raises(ConfigError, match=words):
        sweep.best(architecture=architecture, l0=8).at(k)
