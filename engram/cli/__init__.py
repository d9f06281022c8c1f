"""The command line: `engram serve`, and what is done to the data of a stopped node.

Exit codes: 0 done, 1 something is wrong with the data or the node had to stop, 2 the settings or the arguments are
wrong, 130 stopped with Ctrl-C.
"""

from engram.cli.dispatch import main

__all__ = ["main"]
