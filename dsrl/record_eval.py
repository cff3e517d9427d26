"""Roll out a policy and write a video of each episode.

Example:
    python -m dsrl.record_eval --checkpoint checkpoints/bc/lift/state_3000.pt --n_episodes 3
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsrl.flags import EpisodeFlags, PolicyFlags
from runtime.cli import parse_flags
from runtime.main import run_main

_FEW = EpisodeFlags(n_episodes=3)


def main(
    acting: PolicyFlags,
    episodes: EpisodeFlags = _FEW,
    camera: str = "agentview",
    width: int = 320,
    height: int = 240,
    videos: Path = Path("videos"),
) -> None:
    """Write <videos>/<task>_ep01.mp4 and so on; each ends ten control steps after the success.

    The episodes are those of dsrl.evaluate.

    Args:
        camera: agentview, frontview, birdview, sideview or robot0_eye_in_hand
        width: of the picture
        height: of the picture
        videos: folder
    """
    import envs
    from dsrl.rollout import Prior, episode_seeds
    from runtime.logs import configure_logging
    from runtime.media import write_video

    episodes.check()
    acting.check()
    configure_logging()
    policy, chosen = acting.load()
    choose = chosen or Prior(policy.noise_dim)
    horizon = policy.task.horizon if episodes.horizon is None else episodes.horizon
    env = envs.make(policy.task, horizon=horizon, keys=policy.keys, camera=camera, width=width, height=height)
    for number, episode in enumerate(episode_seeds(episodes.seed, episodes.n_episodes), start=1):
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
        write_video(path, frames, env.metadata["render_fps"])
        print(f"{path}: {'solved' if solved else 'not solved'}, {len(frames) - 1} control steps")
    env.close()


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
