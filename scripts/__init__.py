"""Entry points: each parses its flags and calls one function."""
