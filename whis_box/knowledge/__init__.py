"""What the box knows: chunks, embeddings, identifiers, one SQLite file, and the search over it.

Invariant: every chunk and sentence is a span of its record's text, so every quote can be checked against it.
"""
