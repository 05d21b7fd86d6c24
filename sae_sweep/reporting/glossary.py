"""What the report's numbers are called, and what they mean."""

# What is weighed against L0, in a sentence.
FIDELITIES = {"ce_recovered": "CE recovered", "explained_variance": "explained variance"}

# What the frontier's y axis can show: key, what the choice is called, the axis's title.
MODEL_MEASURES = (
    ("ce_recovered", "CE recovered", "CE recovered, fraction (higher is better)"),
    ("ce_delta", "CE delta", "CE delta, nats per token (lower is better)"),
    ("kl", "KL(clean ‖ SAE)", "KL, nats per token (lower is better)"),
)
TOY_MEASURES = (
    ("explained_variance", "Explained variance", "explained variance, fraction (higher is better)"),
    ("mmcs_truth", "MMCS, true to learned", "MMCS of true latents to learned ones (higher is better)"),
    ("mmcs_truth_frequent", "MMCS, frequent true to learned", "MMCS of frequent true latents (higher is better)"),
    ("mmcs_latents", "MMCS, learned to true", "MMCS of learned latents to true ones (higher is better)"),
)
SHARED_MEASURES = (
    ("fvu", "Fraction of variance unexplained", "FVU (lower is better)"),
    ("gamma", "γ, relative reconstruction bias", "γ (1 is unbiased)"),
    ("alive", "Alive latents", "alive, fraction of latents (higher is better)"),
    ("dead_fraction", "Dead latents", "dead, fraction of latents (lower is better)"),
)

# What a grid of dictionary sizes and sparsities is drawn as: key and title, one heat map each.
MAPS = (
    ("mmcs_truth", "MMCS, true to learned"),
    ("mmcs_truth_frequent", "MMCS, frequent true to learned"),
    ("mmcs_latents", "MMCS, learned to true"),
    ("fvu", "Fraction of variance unexplained"),
    ("l0", "L0"),
    ("dead_fraction", "Dead latents, fraction"),
)

MODEL_DEFINITIONS = (
    (
        "Counted positions",
        "Every number is taken over the same held-out tokens and the same positions: not a special token, not padding, "
        "not the first position of a row without a beginning-of-sequence token. Only counted positions are replaced or "
        "ablated (all of them where positions says so); cross-entropy (CE) and KL average over counted positions whose "
        "next token is not special.",
    ),
    (
        "CE recovered",
        "(CE with zero ablation − CE with the SAE) / (CE with zero ablation − CE of the clean model). The SAE's "
        "reconstruction, or zeros, take the place of the site's activations. 1 is as good as the clean model, 0 as bad "
        "as zeros; it is never clipped. Zeros hurt some sites so much that every SAE comes close to 1: look at CE "
        "delta and KL too.",
    ),
    ("CE delta", "CE with the SAE − CE of the clean model, in nats per token."),
    ("KL", "KL divergence of the next-token distributions, clean model to model with the SAE, in nats per token."),
    (
        "later FVU",
        "Where evaluation.later_sites asks for it: the fraction of variance unexplained between the residual stream "
        "that the SAE leads to and the clean one, averaged over later blocks.",
    ),
    (
        "Frontier",
        "A member is on the frontier when no other of its cell has both an L0 as low and a CE recovered as high, and "
        "is better in one. A cell is what may be compared: one model, site, set of positions and held-out tokens.",
    ),
)
TOY_DEFINITIONS = (
    (
        "Synthetic activations",
        "Each is a sum of a few true latents, which are random directions and known; no model has been read. All "
        "numbers are taken over the same held-out activations, which no member was trained on.",
    ),
    (
        "MMCS",
        "Mean of maximum cosine similarities. True to learned: each true latent looks for the nearest decoder row of a "
        "latent that is alive, which says how much was found. Learned to true: each alive latent looks for the nearest "
        "true one, which says whether what was found is true. Frequent are the true latents that were active on at "
        "least 10,000 of the member's training activations.",
    ),
    ("Explained variance", "1 − FVU. Fidelity here, in the place of what a language model keeps."),
    (
        "Frontier",
        "A member is on the frontier when no other of its cell has both an L0 as low and as much explained variance, "
        "and is better in one. A cell is what may be compared: activations made alike.",
    ),
)
SHARED_DEFINITIONS = (
    ("L0", "Active latents per token, on average."),
    ("FVU", "Fraction of variance unexplained: squared error over the variance of the activations around their mean."),
    (
        "γ (gamma)",
        "Relative reconstruction bias: the mean squared norm of reconstructions over their mean inner product with the "
        "activations. Below 1 the SAE shrinks what it reconstructs.",
    ),
    ("Dead, alive", "Dead: did not fire at the end of training. Alive: fired at least once on the held-out tokens."),
    ("Dense", "Share of latents that fire on more than a tenth of the tokens."),
    ("±", "One standard error, from a paired jackknife over the held-out sequences. Training seeds vary more."),
)
