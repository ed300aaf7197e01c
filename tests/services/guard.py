"""Outlives the tests to clear up after them: ``python -m tests.services.guard MARKER FOLDER SIGNAL``."""

import sys

from tests.services.processes import guard

if __name__ == "__main__":
    guard(sys.argv[1], sys.argv[2], int(sys.argv[3]))
