"""What members cost by position, by plain hooks in float64."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.analyses.longer.beyond import Beyond
from sae_sweep.analyses.longer.rows import Longer
from sae_sweep.analyses.positions import Config, head_shares, run
from sae_sweep.analyses.session import kept
from sae_sweep.analyses.session.command import results
from sae_sweep.analyses.session.finished import finished_saes
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
    found = read({"a": run(session, [sae], Config(6, None))}, session.streams.batches)["a"].members[sae.label]
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
        next(run(session, [sae], Config(0, None)))


def test_longer_rows_by_hand() -> None:
    """Rows of BOS and three tokens become one of BOS and five; what is over is in none."""
    longer = Longer.of(torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, ~8, 9]]), 6, bos=True)
    assert longer.tokens_RT.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert Longer.of(torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, ~8, 9]]), 9, bos=True).tokens_RT[
        0, -2:
    ].tolist() == [7, ~8]
    row_N, place_N = longer.place(torch.tensor([0, 1, 1, 1]), torch.tensor([1, 1, 2, 3]))
    assert (row_N.tolist(), place_N.tolist()) == ([0, 0, 0, 1], [1, 4, 5, 1])
    assert longer.before_T(0).tolist() == [-1, 1, 2, 3, 1, 2]
    assert longer.beyond_RT(range(1)).tolist() == [[False] * 4 + [True, True]], "and 3 ended its row"
    plain = Longer.of(torch.arange(8).view(2, 4), 8, bos=False)
    assert plain.tokens_RT.tolist() == [list(range(8))]
    assert plain.beyond_RT(range(1))[0].nonzero()[:, 0].tolist() == [5, 6], "4 began its row, 7 ended it"


def test_beyond_the_rows_of_training(trained: Path, llama_folder: Path) -> None:
    """Rows of 16 in rows of 40: KL and squared error at the same tokens in both, by plain hooks."""
    sae = in_float64(trained, "gated-l0_3-w40-L2-s1")
    session = Session.of([sae])
    found = read({"a": run(session, [sae], Config(10, 40))}, session.streams.batches)["a"]
    own, plain = found.members[sae.label], PlainModel(llama_folder, trained)
    rows_RT, bos = plain.tokens_RT, plain.tokens_RT[0, :1]
    assert (rows_RT[:, 0] == bos).all()

    def spliced(x_RTD: torch.Tensor, counted_RT: torch.Tensor) -> torch.Tensor:
        made_RTD = sae.sae.decode(sae.sae.encode(x_RTD.flatten(0, 1))).view_as(x_RTD)
        return torch.where(counted_RT[..., None], made_RTD, x_RTD)

    def errors() -> torch.Tensor:
        x_RTD = plain.activation(2)
        return (x_RTD - spliced(x_RTD, torch.ones_like(plain.counted_RT))).square().sum(2)

    text_N = rows_RT[:, 1:].flatten()
    count = len(text_N) // 39
    number_N = torch.arange(count * 39)
    beyond_N = (number_N % 39 + 1 >= 16) & (number_N % 15 != 14)  # the last of a short row has no target there
    beyond_N &= number_N % 39 != 38  # nor has that of a longer one
    short_RT = torch.zeros_like(rows_RT, dtype=torch.bool)
    short_RT[number_N[beyond_N] // 15, number_N[beyond_N] % 15 + 1] = True
    kl_short, _ = plain.kl_and_ce(2, spliced, short_RT)
    target_RT = short_RT & plain.counted_RT
    target_RT[:, :-1] &= rows_RT[:, 1:] > 2
    mse_short = errors()[target_RT].mean().item()
    plain.tokens_RT = torch.cat([bos.expand(count, 1), text_N[: count * 39].view(count, 39)], dim=1)
    plain.counted_RT = plain.tokens_RT > 2
    long_RT = torch.zeros_like(plain.tokens_RT, dtype=torch.bool)
    long_RT[:, 1:] = beyond_N.view(count, 39)
    kl, ce = plain.kl_and_ce(2, spliced, long_RT)
    _, clean = plain.kl_and_ce(2, lambda x_RTD, _: x_RTD, long_RT)
    assert own["kl_beyond"].value == pytest.approx(kl, rel=1e-6)
    assert own["kl_beyond"].control == pytest.approx(kl_short, rel=1e-6)
    assert own["ce_beyond"].value == pytest.approx(ce, rel=1e-6)
    assert own["ce_beyond"].control == own["ce_clean_beyond"].value == pytest.approx(clean, rel=1e-6)
    assert own["mse_beyond"].control == pytest.approx(mse_short, rel=1e-6)
    assert {name for name in own if name.startswith("mse_")} >= {"mse_16_25", "mse_26_35", "mse_36_39"}
    assert own["kl_beyond_over_short"].value == pytest.approx(kl / kl_short, rel=1e-6)
    assert own["kl_beyond_over_short"].standard_error > 0


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (16, "must be above data.context=16, or null"),
        (4096, "local reads rows of at most [0-9]+ tokens; lower it"),
        (602, "the held-out rows have 601 tokens together; lower it"),
    ],
)
def test_rows_that_cannot_be_had(context: int, said: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sae,) = finished_saes(trained, ["topk-l0_3-w24-L1-s0"])
    session = Session.of([sae])
    if context == 602:
        monkeypatch.setattr("sae_sweep.analyses.longer.beyond.longest_of", lambda entries: None)
    with pytest.raises(ConfigError, match=rf"analysis.positions.context={context}:? {said}"):
        next(run(session, [sae], Config(6, context)))


def test_rows_within_documents_are_no_longer(trained: Path) -> None:
    sae = in_float64(trained, "topk-l0_3-w24-L1-s0")
    data = replace(sae.member.config.data, packing="document")
    sae.__dict__["member"] = replace(sae.member, config=replace(sae.member.config, data=data))
    with pytest.raises(ConfigError, match=r"analysis.positions.context=32: rows of data.packing=document"):
        next(run(Session.of([sae]), [sae], Config(6, 32)))


def test_longer_rows_go_on_where_they_were(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies at the second of three batches of longer rows, and does not read the first again."""
    monkeypatch.setattr(kept, "SAVE_SECONDS", 0.0)
    saes, config = finished_saes(trained, ["topk-l0_3-w24-L1-s0"]), {"positions": Config(10, 40)}
    whole = results(saes, config)["positions"]
    real, seen = Beyond._add, []

    def dying(self: Beyond, label: str, which: str, *rest: Any) -> None:
        seen.append(which)
        if seen.count("long") == 2:
            raise KeyboardInterrupt
        real(self, label, which, *rest)

    monkeypatch.setattr(Beyond, "_add", dying)
    with pytest.raises(KeyboardInterrupt):
        results(saes, config, {"positions": kept.Kept(tmp_path / "kept", "x")})
    monkeypatch.setattr(Beyond, "_add", lambda self, *rest: (seen.append(f"again {rest[1]}"), real(self, *rest))[1])
    found = results(saes, config, {"positions": kept.Kept(tmp_path / "kept", "x")})["positions"]
    assert found.members == whole.members
    assert seen == ["short"] * 3 + ["long"] * 2 + ["again long"] * 2
