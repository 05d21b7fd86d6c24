"""How much is held or computed together: what the plan counts on and the run does. No torch.

By kind of device where there are two numbers.
"""

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**28}
"""Pre-activations of a step, tokens x latents. Beyond a few MB a larger product is no faster on a CPU, while everything
around it falls out of cache. A GPU does as many in less time than the host takes to ask for them."""
CODE_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
"""Codes in judging: encoded together."""
TILE_POSITIONS, TILE_TOKENS = {"cpu": 512, "cuda": 4096}, {"cpu": 2048, "cuda": 4096}
"""Logits of one pass in judging and in steps whose objective reads them, on each core of a CPU. Measured on one core of
an AMD EPYC (32 MiB of L3) with d 128 and 640: tiles of 256 to 1,024 positions by 512 to 4,096 tokens differ by 3%, and
with 128 positions the product is 7% slower. Not measured on CUDA, where a tile has 2^24."""
ROW_LOGITS = {"cpu": 2**18, "cuda": 2**24}
"""The same where one tile has the whole vocabulary. A CPU goes over them several times faster while they stay in cache,
and the product with few rows of so small a head costs the same."""
COSINE_ELEMENTS = 2**24
"""Cosines between the rows of two dictionaries."""
SAMPLE_ROWS = 8_192
"""Activations that scales and first parameters are found on."""
TRIM_ROWS, TRIM_FEWEST, TRIM_MARGINS = 2_048, 64, 2**23
"""Rows in the last correction of `sae.l0`: as many as have so many margins, but enough that their mean L0 is like that
of all."""

PINNED_ROUNDED_MB = 16
"""MiB: pinned buffers of up to so many are powers of two, larger ones as long as they are asked for."""

TRIMMED_SHARE = 0.1
"""A member whose L0, before its last correction, missed `sae.l0` by more than this share was cut to it, not trained to
it: it is marked, and on no frontier."""


def positions_together(kind: str, tokens: int, *, whole: bool) -> int:
    """How many positions of a tile of so many tokens, which are the whole vocabulary or not, are looked at together."""
    return max(1, ROW_LOGITS[kind] // tokens) if whole else TILE_POSITIONS[kind]


def rows_together(width: int, most: int = TRIM_ROWS) -> int:
    """How many rows of an SAE of this width the last correction looks at together, where memory lasts for `most`."""
    return min(most, max(TRIM_FEWEST, TRIM_MARGINS // width))
