"""Networks, EDM maths, samplers, training and generation."""
