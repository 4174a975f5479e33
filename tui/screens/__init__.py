"""One folder or module a screen."""
