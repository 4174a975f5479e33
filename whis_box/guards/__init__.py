"""What is enforced in code after the model has spoken.

Invariant: a guard never trusts a prompt to have been followed.
"""
