"""What a run measures: it plans, verifies, times, records; and sweeps over many runs."""
