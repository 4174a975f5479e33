"""Questions, answers and their evidence."""
