"""Every number a report shows, derived from raw samples by pure functions."""
