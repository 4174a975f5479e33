"""Metrics as small pure functions, equal to the reference libraries (tests/test_evaluation_metrics.py)."""
