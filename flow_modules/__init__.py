"""Flows that ship with CoFlows, one package each: class, YAML beside it, README and demo."""
