"""What every stage reads: the spec, examples, folds, predictions and the submission."""
