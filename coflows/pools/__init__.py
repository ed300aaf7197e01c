"""Pools of worker processes and threads: what runs in them can be ended, and fails alone."""
