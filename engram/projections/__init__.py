"""Read models: folds over the log's events, and the stores they are written to."""
