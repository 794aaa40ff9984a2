"""Judges that are models trained for it: reward, cost, pairwise and general preference models."""
