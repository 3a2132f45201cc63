"""Measurements that are too long for a test; not installed and not packed into kernels."""
