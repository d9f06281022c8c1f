"""Raft as a pure state machine in etcd/raft's shape: no I/O, no clock, no randomness of its own."""
