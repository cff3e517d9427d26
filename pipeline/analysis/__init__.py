"""Looks into a run beyond its results: physics, generators, experts, export."""
