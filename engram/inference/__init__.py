"""What models say: embedders, token counters, chunking."""
