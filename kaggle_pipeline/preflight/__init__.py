"""What a TPU's compiler says of a training step, on a machine without a TPU."""
