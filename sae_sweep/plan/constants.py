"""How much is held or computed together: what the plan counts on and the run does. No torch.

By kind of device where there are two numbers.
"""

CHUNK_ELEMENTS = 2**21
"""Pre-activations of a step, tokens x latents. Beyond a few MB a larger product is no faster on a CPU, while everything
around it falls out of cache."""
CODE_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
"""Codes in judging: encoded together."""
LOGIT_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
"""Logits of one pass in judging, and in steps whose objective reads them."""
COSINE_ELEMENTS = 2**24
"""Cosines between the rows of two dictionaries."""
SAMPLE_ROWS = 8_192
"""Activations that scales and first parameters are found on."""
TRIM_ROWS, TRIM_FEWEST, TRIM_MARGINS = 2_048, 64, 2**23
"""Rows in the last correction of `sae.l0`: as many as have so many margins, but enough that their mean L0 is like that
of all."""


def rows_together(width: int, most: int = TRIM_ROWS) -> int:
    """How many rows of an SAE of this width the last correction looks at together, where memory lasts for `most`."""
    return min(most, max(TRIM_FEWEST, TRIM_MARGINS // width))
