"""Autoencoders of openai/sparse_autoencoder: one `.pt` file.

    pre_bias [D]  encoder.weight [F, D]  latent_bias [F]  decoder.weight [D, F]  activation  activation_state_dict

Their loader gives those with `activation` TopK a LayerNorm of each token before the encoder, which no weights can have
folded in: such a file is refused. The released ReLU ones read raw activations.
"""

from pathlib import Path

from sae_sweep.interop._checked import checked_sae, read_torch, tensors_alone
from sae_sweep.interop._files import names_of, one_file, the_file
from sae_sweep.interop._names import to_ours
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae

TENSORS = {"encoder.weight.T": "W_enc", "decoder.weight.T": "W_dec", "latent_bias": "b_enc", "pre_bias": "b_dec"}
OWN = {"pre_bias", "latent_bias"}
"""Names that nobody else has."""
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def recognise(folder: Path) -> bool:
    """Whether it is a `.pt` file, or a folder with one, that has their names, and no config beside it says that it is
    another program's."""
    return any(OWN & (names_of(file) or set()) for file in one_file(folder, (".pt",)))


def read(folder: Path) -> InferenceSae:
    """The autoencoder. Raises ValueError for one that normalises each token, and what is none of theirs."""
    file = the_file(folder, (".pt",))
    found = read_torch(file)
    activation = found.pop("activation", "ReLU")
    for name in ("activation_state_dict", *STATISTICS):
        found.pop(name, None)
    tensors = to_ours(file, tensors_alone(file, found), TENSORS, "openai/sparse_autoencoder")
    if activation != "ReLU":
        raise ValueError(
            f"{file}: activation {activation} comes with a LayerNorm of each token, which is not supported"
        )
    return checked_sae(file, ReluForm(), tensors, subtract_b_dec=True)
