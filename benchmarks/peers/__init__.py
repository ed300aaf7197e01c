"""Other systems, run in an environment of their own: each module is its worker, and with ``call`` its client."""
