"""Real services for the tests: found where the environment says, else started privately, installed when missing."""
