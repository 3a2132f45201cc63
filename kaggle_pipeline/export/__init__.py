"""A trained run as one file that other runtimes read: photo → calibrated probability, decision."""
