"""Errors, atomic files, paths, configuration, seeds, logging: what every layer stands on."""
