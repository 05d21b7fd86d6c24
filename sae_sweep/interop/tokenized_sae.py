"""SAEs of tdooms/tokenized-sae: one `.pt` file with a row for each token id, which is added to reconstructions.

    lookup.W_lookup.weight [V, D]  W_enc [F, D]  W_dec [D, F]  b_enc [F]  b_dec [D]      ReLU and TopK
    lookup.W_lookup.weight [V, D]  W_gate [F, D]  W_dec [D, F]  r_mag, b_gate, b_mag [F]  b_dec [D]      gated

The file says neither ReLU or TopK nor the k. Of k latents those above 0 count.
"""

from pathlib import Path

from sae_sweep.interop._checked import checked, checked_sae, read_torch, tensors_alone
from sae_sweep.interop._files import names_of, one_file, the_file
from sae_sweep.interop._given import Given, relu_or_topk
from sae_sweep.interop._names import to_ours
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.inference import InferenceSae, Lookup

ASKS = ("k", "activation")
SUFFIXES = (".pt", ".pth")
LOOKUP = "lookup.W_lookup.weight"
PLAIN = {"W_enc.T": "W_enc", "W_dec.T": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
GATED = {"W_gate.T": "W_enc", "W_dec.T": "W_dec", "b_dec": "b_dec", **{name: name for name in GatedForm.vectors}}


def recognise(place: Path) -> bool:
    """Whether it is a file with a row for each token id, or a folder with one."""
    return any(LOOKUP in (names_of(file) or ()) for file in one_file(place, SUFFIXES))


def read(place: Path, given: Given) -> InferenceSae:
    """The SAE with its table. Raises ValueError where neither a k nor activation=relu is given for one of the two."""
    file = the_file(place, SUFFIXES)
    found = tensors_alone(file, read_torch(file))
    table_VD = found.pop(LOOKUP, None)
    gated = "W_gate" in found
    tensors = to_ours(file, found, GATED if gated else PLAIN, "tokenized-sae")
    if gated:
        given.unneeded(file, "k", "activation")
    form: InferenceForm = GatedForm() if gated else relu_or_topk(file, given)
    sae = checked_sae(file, form, tensors, subtract_b_dec=True)
    if table_VD is None:
        return sae
    rows = table_VD.shape[0] if table_VD.dim() else 0
    lookup = Lookup(checked(file, LOOKUP, table_VD, (rows, sae.d)), subtract=False)
    return InferenceSae(sae.form, sae.tensors, sae.subtract_b_dec, lookup)
