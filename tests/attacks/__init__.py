"""Attacks on the box: planted instructions by place, disguise and goal, and an attacker that adapts."""
