"""Runs over tasks and seeds as jobs, without a loop."""
