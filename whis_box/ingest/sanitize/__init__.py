"""What identifies people, their machines or their secrets, found and taken out; indicators stay."""
