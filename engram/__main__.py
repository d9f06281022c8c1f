"""`python -m engram` and the console script `engram`."""

import sys

from engram.cli import main as run


def main() -> None:
    """Run the command line with the process's own arguments and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
