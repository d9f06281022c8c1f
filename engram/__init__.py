"""engram: a memory service for LLM agents, event-sourced on a replicated log."""

__version__ = "0.1.0"
