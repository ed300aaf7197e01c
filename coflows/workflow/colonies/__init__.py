"""Workflows that run on executors: submitted graphs, the colonies that they run in, and who works for them."""
