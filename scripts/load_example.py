"""TD3+BC on an exported data set, start to end, on one page.

Example: python -m scripts.load_example --root exported --dataset composuite/IIWA_Box_None_PickPlace/expert-v0
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    root: Path,
    dataset: str,
    task: str = "",
    steps: int = 5000,
    episodes: int = 10,
    horizon: int = 500,
    family: str = "composuite",
) -> None:
    """Train a policy on a Minari data set, or on a file in the flat layout, and count the episodes that it solves.

    Args:
        root: folder that the data were exported to
        dataset: name of a Minari data set in its folder minari, or path of a transitions.hdf5 under it
        task: where to try the policy; default: the task that the data are of
        steps: gradient steps, batches of 512
        episodes: to try it in
        horizon: of these episodes in control steps
        family: of the data's tasks, such as my_package.my_module:FAMILY
    """
    import minari
    import torch

    from corl.evaluate import evaluate
    from corl.policy import Policy
    from corl.replay import ReplayData
    from corl.td3_bc import TD3BC, TD3BCConfig
    from envs.family import find_family
    from envs.pool import EnvPool
    from offline_compositional_rl_datasets.export import from_minari, minari_root, read_flat
    from offline_compositional_rl_datasets.state_transform import StateTransform
    from pipeline.analysis.export import MINARI_ROOT

    tasks = find_family(family)
    layout = tasks.layout
    if dataset.endswith(".hdf5"):
        transitions = read_flat(root / dataset, tasks.task_class)
    else:
        with minari_root(root / MINARI_ROOT):
            transitions = from_minari(minari.load_dataset(dataset), tasks.parse(dataset.split("/")[1]))

    device = torch.device("cpu")
    transform = StateTransform.fit(transitions.states, layout, hide_velocities=True)
    data = ReplayData(transitions, transform, device, timeouts_as_terminals=False)
    learner = TD3BC.build(layout.state_dim, layout.action_dim, TD3BCConfig(alpha=0.5), seed=0, device=device)
    for step in range(1, steps + 1):
        losses = learner.update(data.batch(torch.randint(len(data), (512,), generator=learner.generator)))
        if step % 1000 == 0:
            print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()), flush=True)

    policy = Policy(learner.actor, transform)
    place = tasks.parse(task) if task else transitions.only_task
    with EnvPool(place, episodes, horizon=horizon) as environment:
        result = evaluate(policy, environment, range(episodes))
    print(f"{place}: {result.solved} of {result.episodes} episodes solved, mean return {result.mean_return:.1f}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
