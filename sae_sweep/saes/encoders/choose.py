"""Which encoder serves a step."""

from torch import Tensor

from sae_sweep.kernels.cpu.screening import screens
from sae_sweep.kernels.entries import Room
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.encoders.dense import DenseEncoder
from sae_sweep.saes.encoders.halved import HalvedEncoder
from sae_sweep.saes.encoders.pieces import PiecewiseEncoder
from sae_sweep.saes.encoders.screened import ScreenedEncoder
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.saes.layout import Layout


def encoder_of(
    x_BD: Tensor,
    W_enc: Tensor,
    bias_F: Tensor | None,
    b_pre_MD: Tensor | None,
    layout: Layout,
    dense: bool,
    room: Room | None = None,
) -> Encoder:
    """The encoder of some members for their route, on this hardware; the arguments are those of `Encoder`."""
    if dense:
        return DenseEncoder(x_BD, W_enc, bias_F, b_pre_MD, layout)
    if x_BD.device.type != "cpu":
        of = WholeEncoder if room is None or room.half is None else HalvedEncoder
        return of(x_BD, W_enc, bias_F, b_pre_MD, layout, room)
    return (ScreenedEncoder if screens(x_BD) else PiecewiseEncoder)(x_BD, W_enc, bias_F, b_pre_MD, layout)
