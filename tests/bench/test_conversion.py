"""dictionary_learning's tensors as an SAE of ours, on a case worked by hand: d = 2, two latents, inputs scaled by 2.

The raw input is (3, 1), so its own encoders see (6, 2), and without b_dec = (2, 0) that is (4, 2). Their output is in
scaled units: ours is half of it, as are the codes.
"""

from math import log

import pytest
import torch
from torch import Tensor

from scripts.bench.conversion import from_dictionary_learning

SCALE = 2.0
X_BD = torch.tensor([[3.0, 1.0]])
B_DEC = torch.tensor([2.0, 0.0])
ENCODER = {"encoder.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "encoder.bias": torch.tensor([-1.0, 1.0])}
DECODER = {"decoder.weight": torch.tensor([[1.0, 0.0], [0.5, 1.0]])}
"""[D, F]: the first latent writes (1, 0.5), the second (0, 1)."""


def read(dict_class: str, state: dict[str, Tensor]) -> tuple[list[float], list[float]]:
    """Codes and reconstruction of the input."""
    sae = from_dictionary_learning(dict_class, state, SCALE)
    f_BF = sae.encode(X_BD)
    return f_BF[0].tolist(), sae.decode(f_BF)[0].tolist()


def test_standard() -> None:
    """(4, 2) -> (4, 4) + (-1, 1) = (3, 5) -> (3, 1.5 + 5) + (2, 0) = (5, 6.5)."""
    codes, x_hat = read("AutoEncoder", {**ENCODER, **DECODER, "bias": B_DEC})
    assert (codes, x_hat) == ([1.5, 2.5], [2.5, 3.25])


def test_gated() -> None:
    """Gates (4, 4) + (-5, 0) open the second alone; its magnitude is 2 x 4 - 1 = 7 -> (0, 7) + (2, 0)."""
    state = {
        "encoder.weight": ENCODER["encoder.weight"],
        **DECODER,
        "decoder_bias": B_DEC,
        "gate_bias": torch.tensor([-5.0, 0.0]),
        "mag_bias": torch.tensor([1.0, -1.0]),
        "r_mag": torch.tensor([0.0, log(2)]),
    }
    codes, x_hat = read("GatedAutoEncoder", state)
    assert codes == pytest.approx([0, 3.5])
    assert x_hat == pytest.approx([1, 3.5])


def test_topk() -> None:
    """Of (3, 5) the second alone: (0, 5) + (2, 0)."""
    buffers = {"k": torch.tensor(1, dtype=torch.int), "threshold": torch.tensor(0.5)}
    codes, x_hat = read("AutoEncoderTopK", {**ENCODER, **DECODER, "b_dec": B_DEC, **buffers})
    assert (codes, x_hat) == ([0, 2.5], [1, 2.5])


@pytest.mark.parametrize(
    ("threshold", "bias", "codes"),
    [(4.0, (-1.0, 1.0), [0, 2.5]), (2.9, (-1.0, 1.0), [1.5, 2.5]), (-1.0, (-4.5, 1.0), [0, 2.5])],
    ids=["above one of them", "below both", "never set: what is below 0 does not fire all the same"],
)
def test_batchtopk_uses_its_threshold(threshold: float, bias: tuple[float, float], codes: list[float]) -> None:
    state = {**ENCODER, **DECODER, "b_dec": B_DEC, "k": torch.tensor(1), "threshold": torch.tensor(threshold)}
    assert read("BatchTopKSAE", {**state, "encoder.bias": torch.tensor(bias)})[0] == codes


def test_jumprelu() -> None:
    """b_dec is not subtracted: (6, 2) -> (6, 4) + (-1, 1) = (5, 5), of which 5 > 4.5 alone -> (5, 2.5) + (2, 0)."""
    state = {
        "W_enc": torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        "b_enc": torch.tensor([-1.0, 1.0]),
        "W_dec": torch.tensor([[1.0, 0.5], [0.0, 1.0]]),
        "b_dec": B_DEC,
        "threshold": torch.tensor([4.5, 5.5]),
    }
    assert read("JumpReluAutoEncoder", state) == ([2.5, 0], [3.5, 1.25])
