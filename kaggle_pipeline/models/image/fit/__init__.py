"""Training: rows, loss, optimizer, callbacks and checkpoints."""
