"""The tabular model: features, resampling, network, training."""
