"""What the report's numbers are called, and what they mean."""

# What the frontier's y axis can show: key, what the choice is called, the axis's title.
MEASURES = (
    ("ce_recovered", "CE recovered", "CE recovered, fraction (higher is better)"),
    ("ce_delta", "CE delta", "CE delta, nats per token (lower is better)"),
    ("kl", "KL(clean ‖ SAE)", "KL, nats per token (lower is better)"),
    ("fvu", "Fraction of variance unexplained", "FVU (lower is better)"),
    ("gamma", "γ, relative reconstruction bias", "γ (1 is unbiased)"),
    ("alive", "Alive latents", "alive, fraction of latents (higher is better)"),
    ("dead_fraction", "Dead latents", "dead, fraction of latents (lower is better)"),
)

DEFINITIONS = (
    (
        "Counted positions",
        "Every number is taken over the same held-out tokens and the same positions: not a special token, not padding, "
        "not the first position of a row without a beginning-of-sequence token. Only counted positions are replaced or "
        "ablated (all of them where positions says so); cross-entropy (CE) and KL average over counted positions whose "
        "next token is not special.",
    ),
    ("L0", "Active latents per token, on average."),
    (
        "CE recovered",
        "(CE with zero ablation − CE with the SAE) / (CE with zero ablation − CE of the clean model). The SAE's "
        "reconstruction, or zeros, take the place of the site's activations. 1 is as good as the clean model, 0 as bad "
        "as zeros; it is never clipped. Zeros hurt some sites so much that every SAE comes close to 1: look at CE "
        "delta and KL too.",
    ),
    ("CE delta", "CE with the SAE − CE of the clean model, in nats per token."),
    ("KL", "KL divergence of the next-token distributions, clean model to model with the SAE, in nats per token."),
    ("FVU", "Fraction of variance unexplained: squared error over the variance of the activations around their mean."),
    (
        "γ (gamma)",
        "Relative reconstruction bias: the mean squared norm of reconstructions over their mean inner product with the "
        "activations. Below 1 the SAE shrinks what it reconstructs.",
    ),
    ("Dead, alive", "Dead: did not fire at the end of training. Alive: fired at least once on the held-out tokens."),
    ("Dense", "Share of latents that fire on more than a tenth of the tokens."),
    ("±", "One standard error, from a paired jackknife over the held-out sequences. Training seeds vary more."),
    (
        "Frontier",
        "A member is on the frontier when no other of its cell has both an L0 as low and a CE recovered as high, and "
        "is better in one. A cell is what may be compared: one model, site, set of positions and held-out tokens.",
    ),
)
