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
    used = (denominator_R != 0) | (numerator_R != 0)
    numerator_R, denominator_R = numerator_R[used], denominator_R[used]
    n = len(numerator_R)
    rest_R = denominator_R.sum() - denominator_R
    if n < 2 or bool((rest_R == 0).any()):
        return None
    left_out_R = (numerator_R.sum() - numerator_R) / rest_R
    return sqrt((n - 1) / n * (left_out_R - left_out_R.mean()).square().sum().item())


def means_ratio_standard_error(one_R: Tensor, count_R: Tensor, other_R: Tensor, other_count_R: Tensor) -> float | None:
    """Standard error of (sum(one) / sum(count)) / (sum(other) / sum(other count)).

    None with fewer than two usable sequences, or where the ratio of all but one is undefined.
    """
    used = (count_R != 0) | (other_count_R != 0)
    left = [each[used].sum() - each[used] for each in (one_R, count_R, other_R, other_count_R)]
    n = int(used.sum())
    if n < 2 or any(bool((each == 0).any()) for each in left[1:]):
        return None
    left_out_R = left[0] / left[1] * left[3] / left[2]
    return sqrt((n - 1) / n * (left_out_R - left_out_R.mean()).square().sum().item())
