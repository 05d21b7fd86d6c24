"""Members as training leaves them: parameters of c x activations."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.bank import Bank
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.inference import InferenceSae, Lookup, Units
from sae_sweep.saes.spaces import TRANSCODER, Spaces
from tests.saes.kinds import FREE_DECODER, KINDS, TOPK_KINDS, config

D, WIDTH, K, VOCABULARY, LAYERS = 24, 60, 7, 11, 3
SCALE = 0.037
"""c: what raw activations were multiplied by in training."""
THRESHOLD = 0.25
"""Of batchtopk and matryoshka at inference, in the unit of training."""
PENALTIES_ALONE = (
    *("jumprelu_target_l0", "jumprelu_frequency", "jumprelu_gemma_scope_2"),
    *("hierarchical_topk", "ortsae"),
)
"""Kinds that are another one once trained."""
EVERY: dict[str, SaeConfig] = {
    kind: config(kind, width=WIDTH, input_scale="unit", **({"k": K} if kind in TOPK_KINDS else {})) for kind in KINDS
}
CONFIGS = {kind: made for kind, made in EVERY.items() if kind not in PENALTIES_ALONE}


@dataclass(frozen=True)
class TrainedMember:
    """Float32 parameters in the bank's layout: a latent is a row of W_enc and of W_dec."""

    name: str
    parameters: dict[str, Tensor]

    @property
    def config(self) -> SaeConfig:
        return EVERY[self.name]

    def folded(self) -> InferenceSae:
        buffers = {"threshold": torch.tensor(THRESHOLD)}
        return maths_of(self.config).fold(self.config, self.parameters, buffers, SCALE)


def trained_member(name: str, seed: int) -> TrainedMember:
    """Random parameters for inputs of mean square norm 1; decoder rows of unit norm where training keeps them so."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = normal(WIDTH, D)
    rows /= rows.norm(dim=1, keepdim=True)
    parameters = {
        "W_enc": rows + 0.1 * normal(WIDTH, D),
        "W_dec": rows * (0.1 + normal(WIDTH, 1).abs()) if name in FREE_DECODER else rows,
        "b_dec": 0.1 * normal(D),
    }
    biases = ("b_gate", "b_mag", "r_mag") if name.startswith("gated") else ("b_enc",)
    if name.startswith("jumprelu"):
        parameters["log_threshold"] = -1.5 + 0.2 * normal(WIDTH)
    return TrainedMember(name, parameters | {bias: 0.2 * normal(WIDTH) for bias in biases})


def transcoder(name: str, skip: bool, d_out: int) -> InferenceSae:
    """Random parameters of a transcoder to `d_out` numbers, folded as it is saved."""
    generator = torch.Generator().manual_seed(3)
    member = trained_member(name, 0)
    rows = torch.randn(WIDTH, d_out, generator=generator)
    p = {**member.parameters, "W_dec": rows / rows.norm(dim=1, keepdim=True), "b_dec": rows[0] / 10}
    if skip:
        p["W_skip"] = torch.randn(d_out, D, generator=generator) / D
    bank = Bank(maths_of(member.config), [member.config], [p], [{"threshold": torch.tensor(THRESHOLD)}], TRANSCODER)
    return bank.fold(0, SCALE / 2, torch.ones(d_out), Units(SCALE)).as_saved()


def cross_layer(name: str) -> CrossLayerSae:
    """Random parameters of a transcoder of LAYERS layers, `WIDTH / LAYERS` latents each, folded as it is saved."""
    generator, spaces = torch.Generator().manual_seed(4), Spaces(same=False, layers=LAYERS)
    member = trained_member(name, 0)
    rows = torch.randn(spaces.decoder_rows(WIDTH), D, generator=generator)
    tables = [table / table.norm(dim=1, keepdim=True) for table in spaces.tables(rows)]
    W_dec, b_dec = torch.cat([table.reshape(-1, D) for table in tables]), rows[:LAYERS].flatten() / 10
    p, buffers = {**member.parameters, "W_dec": W_dec, "b_dec": b_dec}, [{"threshold": torch.tensor(THRESHOLD)}]
    sae = Bank(maths_of(member.config), [member.config], [p], buffers, spaces).fold(0, 1.0)
    assert isinstance(sae, CrossLayerSae)
    made = sae.in_raw_units([SCALE] * LAYERS, torch.ones(LAYERS * D) / D, [0.5, 1.0, 2.0], None).as_saved()
    assert isinstance(made, CrossLayerSae)
    return made


def tokenized(sae: InferenceSae, subtract: bool) -> InferenceSae:
    """The SAE with a table of its own, as large as a fifth of the activations."""
    generator = torch.Generator().manual_seed(8)
    rows_VD = torch.randn(VOCABULARY, D, generator=generator) / (5 * SCALE * D**0.5)
    return replace(sae, lookup=Lookup(rows_VD, subtract))


def raw_activations(tokens: int, seed: int) -> Tensor:
    """[tokens, D] whose mean square norm is 1 once scaled."""
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(seed)) / (SCALE * D**0.5)
