"""What a run came to, read from its files: numbers and tables, nothing is drawn."""
