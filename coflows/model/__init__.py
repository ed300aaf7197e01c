"""Pure values: names, messages, addresses and the keys of the mount tree. No I/O, nothing but errors below."""
