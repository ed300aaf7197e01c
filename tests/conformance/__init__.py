"""One suite for each contract; every adapter passes it."""
