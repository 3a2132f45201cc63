"""Predictions of a trained network: views, features, Grad-CAM."""
