"""The experiments: which arms, on which data, with which settings, claims and figures."""
