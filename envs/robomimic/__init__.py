"""Lift, Can and Square of Robomimic: robosuite's models, stepped on MuJoCo directly."""
