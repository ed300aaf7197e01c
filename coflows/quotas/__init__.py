"""How much one caller gets of what an owner serves: the limits, and the pure parts that count and share."""
