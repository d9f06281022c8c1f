"""The replicated log of opaque bytes: Raft, its disk and its wire. It never learns what an event is."""
