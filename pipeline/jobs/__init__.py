"""Stages as jobs, on SLURM or on this machine: queue, attempts, failures, sites. Knows nothing of what a stage does."""
