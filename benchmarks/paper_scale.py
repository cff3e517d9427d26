"""How much there is to do in one IIWA iteration of the paper."""

EXPERTS = 14
"""Tasks with expert data, of 1 M transitions each."""

TARGETS = 50
"""Tasks that are generated, of 1 M transitions each."""

TRAINING_STEPS = 100_000
"""Of the generator, on batches of 1024."""

POLICIES = 178
POLICY_STEPS = 50_000
"""Of one policy, on batches of 1024."""

CONTROL_STEPS = POLICIES * 10 * 10 * 500
"""Each policy is evaluated 10 times over 10 episodes of 500 steps."""
