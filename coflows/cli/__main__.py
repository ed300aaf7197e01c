"""``python -m coflows.cli``."""

from coflows.cli import main

main()
