"""Background work on the leader: it reads projections, calls inference, and writes through the recorder."""
