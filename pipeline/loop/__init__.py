"""The loop: configuration, state, the decisions of the algorithm, and the run that follows them."""
