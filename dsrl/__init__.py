"""Diffusion behaviour cloning on Robomimic and its steering by reinforcement learning in noise space."""
