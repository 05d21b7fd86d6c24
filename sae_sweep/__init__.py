"""Train and compare whole frontiers of sparse autoencoders in one pass over a language model's activations."""

__version__ = "0.1.0"
