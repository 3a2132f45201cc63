"""TFRecords: the schema, and the conversion of photos to it."""
