"""The box: a folder whose manifest names every file in it by sha256."""
