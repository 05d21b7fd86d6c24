"""Directions without a gradient, and members that nothing trains, or not all of them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.cli import main
from sae_sweep.folder.names import WEIGHTS
from sae_sweep.saes.fitted import centroids, drawn_rows, principal_rows

TOY = (
    *("data=toy", "data.block_rows=32", "data.context=64", "data.toy.dimensions=24", "data.toy.latents=40"),
    *("evaluation.tokens=1024", "training.batch_size=256", "training.lr=1e-2", "tracking=none"),
)


def test_components_are_those_of_the_covariance_each_up_and_down() -> None:
    generator = torch.Generator().manual_seed(0)
    scale_D = torch.tensor([1.0, 5.0, 2.0])
    x_ND = torch.randn(20_000, 3, generator=generator) * scale_D
    rows_FD = principal_rows(x_ND, 6)
    expected = torch.tensor([[0.0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0]])
    assert torch.allclose(rows_FD, expected, atol=0.02)
    assert principal_rows(x_ND, 3).equal(rows_FD[:3])


def test_draws_have_the_covariance_of_what_they_are_of() -> None:
    """Of numbers that go together: their covariance is [[2, 1, 0], [1, 1, 0], [0, 0, 0]], exactly."""
    x_ND = 2**0.5 * torch.tensor([[1.0, 1, 0], [-1, -1, 0], [1, 0, 0], [-1, 0, 0]])
    covariance_DD = torch.tensor([[2.0, 1, 0], [1, 1, 0], [0, 0, 0]])
    rows_FD = drawn_rows(x_ND, 100_000, torch.Generator().manual_seed(0))
    assert torch.allclose(rows_FD.T @ rows_FD / len(rows_FD), covariance_DD, atol=0.03)
    assert torch.allclose(rows_FD.mean(0), torch.zeros(3), atol=0.02)


def test_centroids_are_the_means_of_clusters() -> None:
    generator = torch.Generator().manual_seed(1)
    means_KD = 10 * torch.eye(4)[:3]
    points_ND = (means_KD[:, None] + torch.randn(3, 200, 4, generator=generator)).flatten(0, 1)
    found_KD = centroids(points_ND, 3, generator)
    own_KD = points_ND.view(3, 200, 4).mean(1)
    order = torch.cdist(own_KD, found_KD).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(found_KD[order], own_KD, atol=1e-5)


def test_points_that_are_fewer_than_centroids_are_their_own() -> None:
    points_ND = torch.tensor([[1.0, 0], [0, 2], [0, 0]])
    found_KD = centroids(points_ND, 5, torch.Generator().manual_seed(0))
    assert sorted(found_KD.tolist()) == [[0, 2], [1, 0]]


def test_points_that_are_all_0_have_no_centroids() -> None:
    """As where activations are all the same: every row is a random one then."""
    assert centroids(torch.zeros(4, 2), 3, torch.Generator().manual_seed(0)).shape == (0, 2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def test_what_is_not_trained_stays_as_it_began(tmp_path: Path) -> None:
    """One step and ten are compared: two runs, since milestones would be of one."""
    controls = ("frozen_decoder", "frozen_encoder", "random", "pca", "kmeans")
    chosen = (f"sae={','.join(controls)}", "sae.k=3", f"output_dir={tmp_path}", *TOY)
    for name, tokens in (("one", 256), ("ten", 2560)):
        assert main([f"name={name}", f"training.tokens={tokens}", *chosen]) == 0
    labels = {file.parent.name for file in (tmp_path / "one").glob(f"*/{WEIGHTS}")}
    assert {label.partition("-")[0] for label in labels} == set(controls)
    for label in labels:
        one, ten = (weights(tmp_path / name / label) for name in ("one", "ten"))
        assert one["W_dec"].equal(ten["W_dec"]) == (not label.startswith("frozen_encoder"))
        assert one["W_enc"].equal(ten["W_enc"]) == (not label.startswith("frozen_decoder"))
        assert one["b_enc"].equal(ten["b_enc"]) == (not label.startswith("frozen"))
    rows_FD = weights(tmp_path / "one" / next(label for label in labels if label.startswith("pca")))["W_dec"]
    assert rows_FD.shape == (48, 24)
    assert torch.allclose(rows_FD[::2] @ rows_FD[::2].T, torch.eye(24), atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("sae=pca sae.width=50", "sae.decoder_init=pca: 24 numbers have 24 components"),
        ("sae=topk sae.trained=biases", "sae.trained=biases is not one of all, encoder, decoder, none"),
    ],
)
def test_what_cannot_be(overrides: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*overrides.split(), "name=no", "training.tokens=256", f"output_dir={tmp_path}", *TOY]) == 2
    assert said in capsys.readouterr().err


def test_controls_are_grey_in_reports(tmp_path: Path) -> None:
    asked = ("sae=topk,random", "sae.k=3", "training.tokens=512", "sae.width=32", f"output_dir={tmp_path}")
    assert main(["name=grey", *asked, *TOY]) == 0
    page = (tmp_path / "grey" / "report.html").read_text(encoding="utf-8")
    assert '"controls":["random"]' in page.replace(": ", ":")
