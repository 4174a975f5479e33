"""Measuring the box: speed beside a peer in the same run, answers beside golden references."""
