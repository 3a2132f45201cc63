"""Kaggle's side: kernels, sessions, downloads and submissions."""
