"""Predictions, metrics, equivariance checks and the result record: what a run reports, each in one module."""
