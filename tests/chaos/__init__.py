"""Faults, injected for real while messages flow; an oracle judges what came of them."""
