"""Results held against other results: matching, comparing, gating."""
