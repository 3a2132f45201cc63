"""What learns: the loop over folds, the image model and the tabular model."""
