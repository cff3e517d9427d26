"""CompoSuite on MuJoCo: scene, placement, controller, observation, reward, environment."""
