"""Roll out a policy and write a video of each episode.

Example:
    python -m dsrl.record_eval --checkpoint checkpoints/bc/lift/state_3000.pt --n_episodes 3
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    checkpoint: Path,
    sac: Path | None = None,
    deterministic: bool = False,
    n_episodes: int = 3,
    ddim_steps: int | None = None,
    horizon: int | None = None,
    seed: int = 0,
    camera: str = "agentview",
    width: int = 320,
    height: int = 240,
    videos: Path = Path("videos"),
) -> None:
    """Write <videos>/<task>_ep01.mp4 and so on; each ends ten control steps after the success.

    Args:
        checkpoint: state_{epoch}.pt of the cloned policy
        sac: sac_best.zip that chooses the noise; default: noise from N(0, I)
        deterministic: take the mean of the SAC policy
        n_episodes: episodes, with the seeds of dsrl.evaluate
        ddim_steps: sampling steps; default: the checkpoint's
        horizon: control steps per episode; default: the task's
        seed: of start states and noise
        camera: agentview, frontview, birdview, sideview or robot0_eye_in_hand
        width: of the picture
        height: of the picture
        videos: folder
    """
    import imageio
    import numpy as np

    import envs
    from dsrl.diffusion_policy import DiffusionPolicy
    from dsrl.rollout import Prior, episode_seeds
    from runtime.atomic import atomic_path
    from runtime.checks import expect_sizes
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    expect_sizes(n_episodes=n_episodes, **({} if horizon is None else {"horizon": horizon}))
    if deterministic and not sac:
        raise ConfigError("--deterministic: expected --sac too, whose mean it takes")
    configure_logging()
    policy = DiffusionPolicy.load(checkpoint, ddim_steps=ddim_steps)
    horizon = policy.task.horizon if horizon is None else horizon
    choose = Prior(policy.noise_dim)
    if sac:
        from dsrl.noise_env import load_actor

        choose = load_actor(sac, policy, deterministic=deterministic)
    env = envs.make(policy.task, horizon=horizon, keys=policy.keys, camera=camera, width=width, height=height)
    for number, episode in enumerate(episode_seeds(seed, n_episodes), start=1):
        observation, _ = env.reset(seed=episode)
        frames, solved, left = [env.render()], False, 10
        decision, ended = 0, False
        while not ended:
            seen = policy.features(observation[None])
            actions = policy.to_actions(policy.denoise(seen, choose(seen, [episode], decision)))
            for action in actions.reshape(-1, policy.task.action_dim):
                observation, _, _, truncated, info = env.step(action)
                frames.append(env.render())
                solved |= info["success"]
                left -= solved
                ended = truncated or left <= 0
                if ended:
                    break
            decision += 1
        path = videos / f"{policy.task}_ep{number:02d}.mp4"
        with atomic_path(path) as temporary:
            imageio.mimwrite(temporary, np.stack(frames), fps=env.metadata["render_fps"], macro_block_size=16)
        print(f"{path}: {'solved' if solved else 'not solved'}, {len(frames) - 1} control steps")
    env.close()


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
