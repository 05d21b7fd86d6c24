"""Proxies of the right L0, by hand and from dense products."""

from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.correct_l0 import Config, _smallest, decoder_cosine, pooled, run
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64


def test_projections_are_pooled_over_a_row() -> None:
    """Rows (1, 0) and (0, 1) give the numbers themselves. Of the first row (two tokens) 5, 4, 2, 1: the second (n = 1)
    is 4 and the fourth (n = 2) is 1; the second row has one token, 3 and 0."""
    y, sequence = torch.tensor([[5.0, 1.0], [4.0, 2.0], [3.0, 0.0]]), torch.tensor([7, 7, 9])
    assert [each.tolist() for each in pooled(y, torch.eye(2), sequence, 1)] == [[7, 9], [4, 3]]
    assert pooled(y, torch.eye(2), sequence, 2)[1].tolist() == [1, 0]


def test_cosines_of_decoder_rows() -> None:
    """Of (1, 0), (0, 1) and (-0.6, 0.8): 0, 0.6 and 0.8, of which one is left without a row."""
    found = decoder_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]]).double())
    assert found.value == pytest.approx(1.4 / 3)
    left = torch.tensor([0.8, 0.6, 0.0])
    assert found.standard_error == pytest.approx((2 / 3 * (left - left.mean()).square().sum().item()) ** 0.5)
    assert decoder_cosine(torch.eye(2).double()).standard_error is None, "there is one pair"


def test_the_smallest_is_found_with_its_error() -> None:
    """Three rows: members at L0 1, 2, 3 have projections (3, 3, 3), (1, 2, 6) and (2.5, 2.5, 2.5). Their means are 3, 3
    and 2.5; without the last row 3, 1.5 and 2.5, without another one 3, 3.5 or 4 and 2.5: so 3, and 3, 3, 2."""
    means = []
    for values in ([3.0, 3.0, 3.0], [1.0, 2.0, 6.0], [2.5, 2.5, 2.5]):
        means.append(Means(Kept(), "a", 3))
        means[-1].add("projection", torch.arange(3), torch.tensor(values).double())
    found = _smallest([1.0, 2.0, 3.0], means, 2.0)
    assert (found.value, found.n, found.control) == (3, 3, 2)
    assert found.standard_error == pytest.approx((2 / 3 * (2 * (1 / 3) ** 2 + (2 / 3) ** 2)) ** 0.5)


def test_in_the_model(trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, "gated-l0_3-w40-L2-s1")
    session = Session.of([sae])
    found = read({"a": run(session, [sae], Config(5, 0))}, session.streams.batches)["a"].members[sae.label]
    plain = PlainModel(llama_folder, trained)
    x_RTD, rows_FD = plain.activation(2), torch.nn.functional.normalize(sae.sae.tensors["W_dec"], dim=1)
    values, codes = [], []
    for x_TD, counted_T in zip(x_RTD, plain.counted_RT, strict=True):
        projection = (x_TD[counted_T] - sae.sae.tensors["b_dec"]) @ rows_FD.T
        values.append(projection.flatten().sort(descending=True).values[5 * len(projection) - 1])
        codes.append((sae.sae.encode(x_TD[counted_T]) > 0).sum(1))
    assert found["projection"].value == pytest.approx(torch.stack(values).mean().item())
    assert found["l0"].value == pytest.approx(torch.cat(codes).double().mean().item())
    assert found["projection"].control != found["projection"].value
    for n in (0, 21):
        with pytest.raises(ConfigError, match=rf"analysis.correct_l0.n={n}: gated-l0_3-w40-L2-s1 has 40 latents; give"):
            next(run(session, [sae], Config(n, 0)))
