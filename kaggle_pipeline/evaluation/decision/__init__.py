"""Decision: what is called what, learned for the metric that counts."""
