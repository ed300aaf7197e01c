"""Runs a graph in this process: threads, worker processes, an event loop."""
