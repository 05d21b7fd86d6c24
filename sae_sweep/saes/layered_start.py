"""First parameters of members of several layers.

Each layer's latents begin as a transcoder of that layer alone would, from what it reads to all that it may write to.
What a layer gives is the sum of what it and those before it write: as many sums of so many terms have the size of the
targets where each term is smaller by the square root of their mean number, (L + 1) / 2.
"""

from math import sqrt

import torch

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.saes.base import Parameters, SaeMaths
from sae_sweep.saes.initial import Start
from sae_sweep.saes.spaces import TRANSCODER


def first_parameters(
    maths: SaeMaths, config: SaeConfig, start: Start, width: int, generator: torch.Generator
) -> Parameters:
    """One member's, float32 on the CPU: what its architecture begins with, of each layer where it has several."""
    layers = start.spaces.layers
    if layers == 1:
        return maths.initialise(config, start, width, generator)
    inputs, share = start.inputs_ND.chunk(layers, dim=1), sqrt(2 / (layers + 1))
    d = len(start.mean_D) // layers
    found = []
    for layer, inputs_Nd in enumerate(inputs):
        written = slice(layer * d, None)
        outputs_ND, mean_D = share * start.targets_ND[:, written], share * start.mean_D[written]
        own = Start(inputs_Nd.contiguous(), mean_D, TRANSCODER, outputs_ND)
        found.append(maths.initialise(config.of_layer(layers), own, width // layers, generator))
    made = {name: torch.cat([p[name] for p in found]) for name in found[0] if name not in ("W_dec", "b_dec")}
    W_dec = torch.cat([p["W_dec"].reshape(-1, d) for p in found])
    return {**made, "W_dec": W_dec, "b_dec": start.b_dec(config.b_dec_init)}
