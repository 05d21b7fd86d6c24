"""What is true of kernels before any tensor, for a plan to read: by kind of device where there are two numbers. No
torch."""

CACHE_BYTES = 2**20
"""A core's own cache, about."""
DENSE_ABOVE = {"cpu": 0.25, "cuda": 0.04, "tf32": 0.0075}
"""Share of (token, latent) pairs with a gradient above which dense products cost less than lists. On a CPU measured; on
CUDA, and on CUDA with TF32, by bytes and operations at an H100's rates, where rows are gathered at 4 TB/s."""
