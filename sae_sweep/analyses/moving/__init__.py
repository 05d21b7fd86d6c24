"""Members at other places than their own: where, rescaled to them, and trained on there."""
