"""The experiment: every setting, its range, and the YAML file it is read from."""
