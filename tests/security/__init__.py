"""What an adversary tries: each test is an attack, and fails when it succeeds."""
