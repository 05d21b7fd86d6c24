"""What members cost by position, by plain hooks in float64."""

from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.positions import Config, head_shares, run
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64


def test_heads_by_hand() -> None:
    """Two heads of two numbers: of (3, 4, 0, 0) all is the first's, of (1, 1, 1, 1) half is each's."""
    rows = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert head_shares(rows, 2).tolist() == [[1, 0], [0.5, 0.5]]


def test_by_plain_hooks(trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, "gated-l0_3-w40-L2-s1")
    session = Session.of([sae])
    found = read({"a": run(session, [sae], Config(6))}, session.streams.batches)["a"].members[sae.label]
    plain, place_T = PlainModel(llama_folder, trained), torch.arange(16)

    def spliced(x_RTD: torch.Tensor, counted_RT: torch.Tensor) -> torch.Tensor:
        made_RTD = sae.sae.decode(sae.sae.encode(x_RTD.flatten(0, 1))).view_as(x_RTD)
        return torch.where(counted_RT[..., None], made_RTD, x_RTD)

    here_T = (place_T >= 6) & (place_T < 12)
    kl, ce = plain.kl_and_ce(2, spliced, here_T.expand_as(plain.counted_RT))
    _, clean = plain.kl_and_ce(2, lambda x_RTD, _: x_RTD, here_T.expand_as(plain.counted_RT))
    assert found["kl_6_11"].value == pytest.approx(kl, rel=1e-6)
    assert found["ce_6_11"].value == pytest.approx(ce, rel=1e-6)
    assert found["ce_6_11"].control == pytest.approx(clean, rel=1e-6)
    where = plain.counted_RT & here_T
    x_ND = plain.activation(2)[where]
    f_NF = sae.sae.encode(x_ND)
    assert found["mse_6_11"].value == pytest.approx((x_ND - sae.sae.decode(f_NF)).square().sum(1).mean().item())
    assert found["l0_6_11"].value == pytest.approx((f_NF > 0).sum(1).double().mean().item())
    assert {name.split("_")[0] for name in found} == {"kl", "ce", "mse", "l0"}
    assert "kl_12_17" in found
    with pytest.raises(ConfigError, match=r"analysis.positions.step=0 must be at least 1"):
        next(run(session, [sae], Config(0)))
