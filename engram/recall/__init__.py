"""Finding and packing memories: search, rank, and fit into the token budget."""
