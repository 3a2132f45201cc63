"""From TFRecord shards to augmented batches."""
