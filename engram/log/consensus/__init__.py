"""Raft as a pure state machine: no I/O, no clock, no randomness of its own.

Its shape, its rules and its message numbers are those of etcd-io/raft (Apache License 2.0), whose public scripts it is
tested with; the code is our own. In short: messages and ticks go into `rawnode.RawNode`, and what is to be written,
sent and applied comes out as one `Ready`. Raft itself is the paper by Ongaro and Ousterhout, and the dissertation.
"""
