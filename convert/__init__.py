"""From published weights to what a box carries: fetch, verify, re-quantize, export.

Invariant: every product is bound to its inputs by hash, and appears under its name only when it is complete.
"""
