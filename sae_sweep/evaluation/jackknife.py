"""Standard errors over sequences: tokens of one text are not independent, texts nearly are.

The jackknife leaves one sequence out at a time. Numerator and denominator come from the same sequences, so what
they share cancels.
"""

from math import sqrt

from torch import Tensor


def ratio_standard_error(numerator_R: Tensor, denominator_R: Tensor) -> float | None:
    """Standard error of sum(numerator) / sum(denominator).

    None with fewer than two usable sequences, or where the ratio of all but one is undefined.
    """
    used = denominator_R != 0
    numerator_R, denominator_R = numerator_R[used], denominator_R[used]
    n = len(numerator_R)
    rest_R = denominator_R.sum() - denominator_R
    if n < 2 or bool((rest_R == 0).any()):
        return None
    left_out_R = (numerator_R.sum() - numerator_R) / rest_R
    return sqrt((n - 1) / n * (left_out_R - left_out_R.mean()).square().sum().item())
