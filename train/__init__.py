"""What runs on the build host to make models: datasets, adapters, the embedder and the people-finder."""
