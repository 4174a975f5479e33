"""What runs, and what may be changed about it."""
