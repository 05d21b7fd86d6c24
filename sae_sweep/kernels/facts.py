"""What is true of kernels before any tensor, for a plan to read. No torch."""

CACHE_BYTES = 2**20
"""A core's own cache, about."""
