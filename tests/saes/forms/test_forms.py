"""Each form by hand: what fires and with what, dense and listed, and what a shift and a cut do to it."""

import pytest
import torch
from torch import Tensor

from sae_sweep.interop.saelens import FORMS
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

VECTORS = {"b_enc": 1.0, "threshold": 2.0, "b_gate": -1.0, "b_mag": 0.5, "r_mag": 0.0}
Z = [-2.0, -1.0, 1.0, 2.0]
"""What the encoder makes of the one input, by latent."""
BY_HAND: dict[InferenceForm, tuple[list[float], list[float], dict[str, float]]] = {
    ReluForm(): ([0, 0, 2, 3], [0, 0, 1, 2], {"b_enc": 0.5}),
    TopKForm(1): ([0, 0, 0, 3], [0, 0, 0, 2], {}),
    JumpReluForm(): ([0, 0, 0, 3], [0, 0, 0, 0], {"threshold": 1.0}),
    GatedForm(): ([0, 0, 0, 2.5], [0, 0, 0, 0], {"b_gate": -1.5}),
}
"""Codes; codes where z is less by 1; and the tensor that a cut of 0.5 changes. No margin of exactly 0 fires."""


def sae_of(form: InferenceForm) -> InferenceSae:
    own = {name: torch.full((4,), VECTORS[name]) for name in form.vectors}
    return InferenceSae(
        form, {"W_enc": torch.tensor([Z]), "W_dec": torch.ones(4, 1), "b_dec": torch.zeros(1), **own}, False
    )


@pytest.mark.parametrize("form", BY_HAND, ids=lambda form: type(form).__name__)
def test_by_hand(form: InferenceForm) -> None:
    codes, shifted, cut = BY_HAND[form]
    x_BD, sae = torch.ones(1, 1), sae_of(form)
    assert sae.encode(x_BD).tolist() == [codes]
    listed = sae.coded(x_BD)[0]
    assert dict(zip(listed.column_N.tolist(), listed.value_N.tolist(), strict=True)) == {
        i: f for i, f in enumerate(codes) if f
    }
    moved = InferenceSae(form, {**sae.tensors, **form.shifted(sae.tensors, torch.ones(4))}, False)
    assert moved.encode(x_BD).tolist() == [shifted]
    assert {name: tuple(t.shape) for name, t in sae.tensors.items()} == form.shapes(1, 4, 1)
    assert form.trims(sae.tensors) == bool(cut)
    if cut:
        changed: dict[str, Tensor] = form.trimmed(sae.tensors, torch.tensor(0.5))
        assert {name: t.tolist() for name, t in changed.items()} == {name: [value] * 4 for name, value in cut.items()}


def test_every_form_is_here() -> None:
    assert {kind.Form for kind in FORMS.values()} == {type(form) for form in BY_HAND}
