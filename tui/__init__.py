"""The analyst's terminal: screens over the HTTP endpoint; the folder tree is the screen tree."""
