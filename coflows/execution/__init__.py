"""Tasks in threads and processes of this machine."""
