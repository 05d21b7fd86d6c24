"""What docs/measured.md reports: the questions, their numbers over seeds, the figures, the page."""
