"""The command lines that `scripts/` call."""
