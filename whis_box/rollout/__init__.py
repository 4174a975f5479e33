"""Which adapter and index answer: stable, canary, shadow, and the way back; every change is audited."""
