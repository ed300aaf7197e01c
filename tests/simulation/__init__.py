"""The engine's decisions without its I/O: a broker, a store and workers in memory, on a clock that seeds drive."""
