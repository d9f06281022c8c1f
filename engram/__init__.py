"""engram: a memory service for LLM agents, event-sourced on a replicated log."""

import os

__version__ = "0.1.0"

# Read when numpy is imported, so it must be set before: a session's vectors are too few for a second thread, and on
# busy cores waiting for one makes a search six times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# gRPC's C core writes to stderr by itself, about every connection that ends.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
