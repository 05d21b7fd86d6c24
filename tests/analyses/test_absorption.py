"""First letters, by hand; and absorbed words in a model that has some."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.absorption import Config, absorbed, main_latents, run
from sae_sweep.analyses.probes.letters import Sample, first_letters
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError

ASKED = Config(examples=100, each=2, fewest=2, gain=0.03, cosine=0.1, share=0.4, seed=0)


def test_words_begin_with_letters() -> None:
    assert first_letters([" Apple", "bee", "of", "x_y", "Über", "zoo1", "zoo"]).tolist() == [0, 1, -1, -1, -1, -1, 25]


def test_a_sample_is_bounded() -> None:
    """Twice each word, four at most; token 1 is none."""
    kept, letters = Kept(), torch.tensor([0, -1, 3, 4])
    sample = Sample(kept, "a", (4, 1), 4, 2)
    sample.add(torch.arange(6.0)[:, None], torch.tensor([0, 0, 1, 0, 2, 0]), letters)
    assert sample.taken[1].tolist() == [0, 0, 2]
    sample.add(torch.arange(6.0, 9.0)[:, None], torch.tensor([0, 3, 3]), letters)
    x, tokens = sample.taken
    assert tokens.tolist() == [0, 0, 2, 3]
    assert x[:, 0].tolist() == [0, 1, 4, 7]


def test_main_latents_by_hand() -> None:
    """Six words, of which the first four begin with the letter. Latent 1 fires on three of these (F1 6/7), latent 2 on
    the fourth alone, which makes F1 1; latent 0 fires on all, so it adds nothing."""
    is_N = torch.tensor([True] * 4 + [False] * 2)
    fires = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]]).bool()
    assert main_latents(fires, is_N, 0.03) == [1, 2]
    assert main_latents(fires, is_N, 0.2) == [1]


def test_absorbed_by_hand() -> None:
    """The probe is (1, 0), on which all three project 2. The first latent's row is along it and gives 1 of the 2 at the
    first word, 0.5 at the second; the other's row is across it, with cosine 0, whatever it gives."""
    x, w = torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, 3.0]]).double(), torch.tensor([1.0, 0.0]).double()
    f, rows = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 3.0]]).double(), torch.eye(2).double()
    assert absorbed(x, f, rows, w, ASKED).tolist() == [True, False, False]
    assert absorbed(-x, f, rows, w, ASKED).tolist() == [False, False, False]


def test_transcoders_are_told(trained: Path) -> None:
    """Their decoder rows are of another space than the probes."""
    (sae,) = finished_saes(trained, ["topk-l0_3-w24-L1-s0"])
    site = replace(sae.member.site, output=sae.member.site)
    sae.__dict__["member"] = replace(sae.member, site=site)
    sae.__dict__["sae"] = replace(sae.sae, transcodes=True)
    with pytest.raises(ConfigError, match=r"analysis.absorption: topk-l0_3-w24-L1-s0 is a transcoder, whose decoder"):
        next(run(Session.of([sae]), [sae], ASKED))


def test_letters_without_words_are_told(trained: Path) -> None:
    """The model's tokens are bytes: no word among them has three letters."""
    saes = finished_saes(trained, ["topk-l0_3-w24-L1-s0"])
    reading = run(Session.of(saes), saes, ASKED)
    next(reading)
    with pytest.raises(ConfigError, match=r"analysis.absorption.fewest=2: no letter begins so many words"):
        reading.send(None)
