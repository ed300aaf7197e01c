"""Bytes of values: msgpack for all that crosses users, and a user's own state."""
