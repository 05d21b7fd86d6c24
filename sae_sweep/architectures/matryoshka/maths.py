"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, arXiv 2503.17547), decoder rows at unit norm:

    f as in `batchtopk/maths.py`, over the full width
    L = sum_g ||x - (sum_{i < m_g} f_i W_dec,i + b_dec)||^2 + AuxK

over G nested prefixes m_1 < ... < m_G = F of the latents (`saes/nested.py`), as in section 3.1, with equal weights.
(The paper's code divides the sum by G^2 and adds AuxK as it is, which then weighs G^2 times as much as here.) Nothing
in this is BatchTopK's: with `sae.groups` above 1 the losses of TopK, JumpReLU and standard SAEs are sums over prefixes
too.
"""

from sae_sweep.architectures.batchtopk.maths import BatchTopK


class Matryoshka(BatchTopK):
    """The maths of `sae=matryoshka`."""


Maths = Matryoshka
