"""HierarchicalTopK SAE (Balagansky et al. 2025, arXiv 2505.24473, section 3): one SAE, many k. Decoder rows at unit
norm:

    z = W_enc (x - b_dec) + b_enc,   x_hat_j = sum_{i in TopK_j(z)} ReLU(z_i) W_dec,i + b_dec
    L = sum_{j in J} ||x - x_hat_j||^2 + AuxK

over numbers j of latents up to k: all of them, as in the paper, or powers of two and k (`budgets`). The paper takes the
mean over J, which is L up to a factor that Adam does not see, but for AuxK: TopK's, which weighs as much beside the sum
as beside TopK's one error, and 1 / |J| of what it would beside the mean. The largest j of a token are among its
largest k, so no latent fires for one j alone, and an SAE that is trained for k may be used with any number below it. It
is judged and saved with k.
"""

from torch import Tensor

from sae_sweep.architectures.hierarchical_topk.facts import HierarchicalTopKConfig
from sae_sweep.architectures.topk.maths import TopK
from sae_sweep.saes.base import Parameters, Step
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.nested import Errors, nested_errors


class HierarchicalTopK(TopK):
    """The maths of `sae=hierarchical_topk`."""

    def errors(self, codes: Codes, f: Tensor, p: Parameters, target_BMD: Tensor, step: Step) -> Errors:
        ks = [config.ks for config in step.configs if isinstance(config, HierarchicalTopKConfig)]
        parts, values = codes.ranked(f, ks)
        return nested_errors(parts.decode(values, p["W_dec"]), [len(own) for own in ks], target_BMD, p["b_dec"])


Maths = HierarchicalTopK
