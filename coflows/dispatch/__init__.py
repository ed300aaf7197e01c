"""Works messages off: admission decides when a turn may run, the runner runs and commits it, partitions feed it."""
