"""The command line: `engram serve`, `engram cluster`, and what is done to the data of a stopped node.

Exit codes: 0 done, 1 something is wrong with the data, the node had to stop or the cluster refused, 2 the settings or
the arguments are wrong, 130 stopped with Ctrl-C.
"""

from engram.cli.dispatch import main

__all__ = ["main"]
