"""Cross-entropy against training compute, of a family of models."""
