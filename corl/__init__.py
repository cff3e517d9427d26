"""Offline reinforcement learning and its evaluation."""
