"""True latents of synthetic activations, and what of them an SAE has."""
