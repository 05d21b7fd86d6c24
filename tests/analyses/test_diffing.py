"""Relative norms and factors: by hand, and by dense sums over what plain hooks see."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.analyses.diffing import Config, Diffs, run
from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import in_float64
from tests.evaluation.definitions import PlainSae
from tests.two_models import PlainPair

CONFIG = Config(0.1, 0.2, 0.5)
NAN = float("nan")


def test_by_hand() -> None:
    """Four latents: the second's alone, but the first's reconstruction leaves half of it; its alone, and nowhere in the
    first; both's, along one row; one that never fired. All fired once with 2, so that squares are 4."""
    first = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    second = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0], [1.0, 0.0]])
    sums = {
        "squares": torch.tensor([4.0, 4.0, 4.0, 0.0]),
        "error_first": torch.tensor([8.0, 0.0, 0.0, 0.0]),
        "error_second": torch.tensor([0.0, 1.0, 0.0, 0.0]),
        "reconstruction_first": torch.tensor([4.0, 1.0, 50.0, 0.0]),
        "reconstruction_second": torch.tensor([16.0, 4.0, 50.0, 0.0]),
    }
    found = Diffs.of((first, second), {name: value.double() for name, value in sums.items()})
    assert found.relative_norm_F.tolist() == [1, 1, 0.5, 0.5]
    # What the first leaves, and what the row itself adds to it: 8 of 4 x 4; 0 of 1 + 4; 4 x 25 of as much.
    assert found.nu_error_F[:3].tolist() == [0.5, 0, 1]
    assert found.nu_reconstruction_F[:3].tolist() == [0.25, 0.25, 1]
    numbers = found.numbers(CONFIG)
    assert {name: (one.value, one.n, one.control) for name, one in numbers.items()} == {
        "first_only": (0, 3, None),
        "second_only": (pytest.approx(2 / 3), 3, None),
        "shared": (pytest.approx(1 / 3), 3, None),
        "shrunk": (0.5, 2, 1),
        "decoupled": (0, 2, 1),
        "specific": (0.5, 2, 0),
        "cosine": (1, 1, None),
    }
    assert found.details()["nu_error"] == [0.5, 0, 1, None]
    for changed in (Config(0.1, 0.6, 0.5), Config(0.1, 0.2, 0.2)):
        assert found.numbers(changed)["specific"].value != found.numbers(CONFIG)["specific"].value
    near = Diffs.of((first[:1] + torch.tensor([0.35, 0.0]), second[:1]), {n: v[:1].double() for n, v in sums.items()})
    assert [near.numbers(Config(alone, 0.2, 0.5))["second_only"].value for alone in (0.05, 0.1)] == [0, 1]


def dense(pair: PlainPair, sae: PlainSae, scale_D: Tensor) -> tuple[Tensor, Tensor]:
    """Each latent's factors by least squares, one latent after the other."""
    x, x_hat, f = [], [], []
    for row_T in pair.rows:
        own = pair.counted(row_T)
        x_TD = torch.cat(pair.activations(row_T), dim=1)
        f_TF = sae.encode(x_TD)
        f.append(f_TF[own])
        x.append((x_TD * scale_D)[own])
        x_hat.append((sae.decode(f_TF) * scale_D)[own])
    x_2ND, hat_2ND = (torch.stack(torch.cat(each).chunk(2, dim=1)) for each in (x, x_hat))
    f_NF, rows_2FD = torch.cat(f), torch.stack((sae.tensors["W_dec"] * scale_D).chunk(2, dim=1))
    nu = []
    for latent, code_N in enumerate(f_NF.T):
        along_ND = code_N[:, None] * rows_2FD[1, latent]
        factors = []
        for own_ND, hat_ND, row_D in zip(x_2ND, hat_2ND, rows_2FD[:, latent], strict=True):
            left_ND = own_ND - (hat_ND - code_N[:, None] * row_D)
            for target_ND in (left_ND, hat_ND):
                solved = torch.linalg.lstsq(along_ND.reshape(-1, 1), target_ND.reshape(-1, 1)).solution
                factors.append(solved.item() if code_N.any() else NAN)
        nu.append((factors[0] / factors[2], factors[1] / factors[3]) if code_N.any() else (NAN, NAN))
    return torch.tensor([each[0] for each in nu]), torch.tensor([each[1] for each in nu])


@pytest.mark.parametrize("name", ["topk", "april"])
def test_by_plain_hooks(
    two_models: Mapping[str, FinishedSae], llama_folder: Path, tuned_folder: Path, name: str
) -> None:
    sae = in_float64(two_models[name].folder.parent, two_models[name].label)
    session = Session.of([sae])
    result = read({"a": run(session, [sae], CONFIG)}, session.streams.batches)["a"]
    details, numbers = result.details[sae.label], result.members[sae.label]
    tensors = {key: t.double() for key, t in load_file(sae.folder / "sae_weights.safetensors").items()}
    card = json.loads((sae.folder / "cfg.json").read_text())
    scale_D = torch.tensor(card["metadata"]["input_scale"]).double().repeat_interleave(32)
    plain = PlainSae(card["activation"], tensors, False, card.get("k"))
    errors, reconstructions = dense(PlainPair(sae, llama_folder, tuned_folder), plain, scale_D)
    for key, expected in (("nu_error", errors), ("nu_reconstruction", reconstructions)):
        found = [NAN if value is None else value for value in details[key]]
        assert found == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-6, nan_ok=True), key
    norms = torch.stack((tensors["W_dec"] * scale_D).chunk(2, dim=1)).norm(dim=2)
    relative = 0.5 * ((norms[1] - norms[0]) / norms.amax(0) + 1)
    alive = sae.alive_F
    assert [value for value in details["relative_norm"] if value is not None] == pytest.approx(
        relative[alive].tolist(), rel=1e-4
    )
    assert numbers["shared"].n == int(alive.sum())
    assert result.figure is not None
    assert sum(y for y in result.figure.series[0].y if y is not None) == pytest.approx(1)


def test_what_it_cannot_be_asked(trained: Path, two_models: Mapping[str, FinishedSae]) -> None:
    (plain, *_) = finished_saes(trained)
    with pytest.raises(ConfigError, match=r"analysis.diffing: .* is of one model; --member those with site.models"):
        next(run(Session.of([plain]), [plain], CONFIG))
    pair = two_models["topk"]
    with pytest.raises(ConfigError, match=r"analysis.diffing.alone=0.3 must be above 0 and below 0.25"):
        next(run(Session.of([pair]), [pair], Config(0.3, 0.2, 0.5)))
