"""The command lines of online learning. The three published scripts are this one program with other prior data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from corl.online_config import OnlineConfig

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class Variant:
    """What makes a published script: its name, where its prior data is from, whether the agent sees task ids."""

    exp_name: str
    prior: Literal["none", "synthetic", "real"]
    task_ids: bool


VARIANTS = {
    "original": Variant("cleanrl_sac_original_taskIDenabled", "none", task_ids=True),
    "rlpd_synthdata": Variant("cleanrl_sac_rlpd_synthdata", "synthetic", task_ids=False),
    "rlpd_14realdata": Variant("cleanrl_sac_rlpd_14realdata", "real", task_ids=True),
}


def sac_command(variant: Variant) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags."""

    def main(
        robot: str = "IIWA",
        obj: str = "Box",
        obst: str = "ObjectDoor",
        subtask: str = "Push",
        seed: int = 1,
        exp_name: str = variant.exp_name,
        config: Path | None = None,
        total_timesteps: int | None = None,
        num_envs: int | None = None,
        buffer_size: int | None = None,
        gamma: float | None = None,
        tau: float | None = None,
        batch_size: int | None = None,
        learning_starts: int | None = None,
        policy_lr: float | None = None,
        q_lr: float | None = None,
        policy_frequency: int | None = None,
        target_network_frequency: int | None = None,
        alpha: float | None = None,
        autotune: bool = True,
        eval_freq: int | None = None,
        n_eval_episodes: int | None = None,
        env_horizon: int | None = None,
        updates_per_step: int | None = None,
        critics: int | None = None,
        target_critics: int | None = None,
        layer_norm: Literal["none", "last", "all"] | None = None,
        base_synthetic_data_path: Path | None = None,
        mix_ratio_start: float | None = None,
        mix_ratio_end: float | None = None,
        mix_ratio_decay_steps: int | None = None,
        mix_ratio_decay_start: int | None = None,
        data_path: Path | None = None,
        dataset_type: str = "expert",
        num_train: int = 14,
        experiment_type: str = "component-wise",
        task_list_seed: int = 0,
        use_composuite: bool = True,
        torch_deterministic: bool = True,
        cuda: bool = True,
        capture_video: bool = False,
        track: bool = False,
        wandb_project_name: str = variant.exp_name,
        tensorboard: bool = False,
        runs_path: Path | None = None,
    ) -> None:
        """Learn one task online with SAC. The same command run again continues where it was stopped.

        A flag overrides the configuration file. The defaults in brackets are those without a file.

        Args:
            robot: such as IIWA; a wrong name is answered with the right ones
            obj: such as Box
            obst: such as ObjectWall, or None
            subtask: such as PickPlace
            seed: of networks, actions, episodes and batches
            exp_name: part of the run's name
            config: YAML file with any part of OnlineConfig, see config/online/
            total_timesteps: steps of the environment [1000000]
            num_envs: environments side by side [1]
            buffer_size: own transitions that are kept [1000000]
            gamma: discount [0.99]
            tau: share of the way that targets move [0.005]
            batch_size: transitions per update, prior data included [256]
            learning_starts: steps with random actions, before the first update [5000]
            policy_lr: learning rate of the actor [3e-4]
            q_lr: learning rate of critics and temperature [1e-3]
            policy_frequency: critic updates per actor update [1]
            target_network_frequency: critic updates per move of the targets [1]
            alpha: the temperature where it is not learned [0.2]
            autotune: learn the temperature
            eval_freq: steps between evaluations [100000]
            n_eval_episodes: episodes of an evaluation [10]
            env_horizon: control steps per episode [500]
            updates_per_step: critic updates per step of an environment [1]
            critics: number of critics [2]
            target_critics: how many of them, drawn at random, give the target [2]
            layer_norm: where the critics normalise: nowhere, behind the last hidden layer or in all [last]
            base_synthetic_data_path: folder with <TASK>/samples_0.npz (prior data synthetic)
            mix_ratio_start: share of prior data in a batch at first [0.5]
            mix_ratio_end: and at last [0.0]
            mix_ratio_decay_steps: steps from the one to the other [500000]
            mix_ratio_decay_start: step at which that begins [500000]
            data_path: root of expert data (prior data real); default from config/paths.yaml
            dataset_type: expert, medium, random or medium-replay-subsampled
            num_train: the first so many train tasks of the split give prior data
            experiment_type: kind of split
            task_list_seed: which split file
            use_composuite: the only family of tasks here
            torch_deterministic: deterministic cuDNN kernels
            cuda: use a GPU where there is one
            capture_video: film an episode of the best policy at the end, to video.mp4 in the run's folder
            track: log to Weights & Biases too, offline where there is no network
            wandb_project_name: its project
            tensorboard: log to TensorBoard too
            runs_path: where runs go; default from config/paths.yaml
        """
        import torch

        from offline_compositional_rl_datasets.splits import load_split
        from offline_compositional_rl_datasets.task import Task
        from pipeline.stages.online import LearnOnline, Tracking, film, real_prior, run_name, synthetic_prior
        from runtime import interrupt
        from runtime.errors import ConfigError
        from runtime.logs import configure_logging
        from runtime.paths import machine_settings

        if not use_composuite:
            raise ConfigError("--no-use_composuite: CompoSuite's tasks are the only ones here")
        settings = {
            "total_timesteps": total_timesteps,
            "num_envs": num_envs,
            "buffer_size": buffer_size,
            "learning_starts": learning_starts,
            "eval_freq": eval_freq,
            "n_eval_episodes": n_eval_episodes,
            "env_horizon": env_horizon,
            "mix": {
                "start": mix_ratio_start,
                "end": mix_ratio_end,
                "decay_steps": mix_ratio_decay_steps,
                "decay_start": mix_ratio_decay_start,
            },
            "sac": {
                "gamma": gamma,
                "tau": tau,
                "batch_size": batch_size,
                "policy_lr": policy_lr,
                "q_lr": q_lr,
                "policy_frequency": policy_frequency,
                "target_network_frequency": target_network_frequency,
                "alpha": alpha,
                "autotune": None if autotune else False,
                "updates_per_step": updates_per_step,
                "critics": critics,
                "target_critics": target_critics,
                "layer_norm": layer_norm,
            },
        }
        online = load_online_config(config, settings, variant)
        task = Task(robot, obj, obst, subtask)
        machine = machine_settings()
        prior, root = (), None
        if variant.prior == "synthetic":
            if base_synthetic_data_path is None:
                raise ConfigError("--base_synthetic_data_path is missing: expected a folder with <TASK>/samples_0.npz")
            prior, root = synthetic_prior(base_synthetic_data_path, task), base_synthetic_data_path
        elif variant.prior == "real":
            tasks = load_split(machine.tasks_path, experiment_type, task_list_seed).first(num_train)
            prior = real_prior(data_path or machine.data_path, dataset_type, tasks)
        configure_logging()
        torch.backends.cudnn.deterministic = torch_deterministic
        folder = (runs_path or machine.runs_path) / run_name(task, exp_name, seed, root)
        stage = LearnOnline(
            task=task,
            config=online,
            seed=seed,
            folder=folder,
            prior=prior,
            synthetic=variant.prior == "synthetic",
            tracking=Tracking(wandb_project_name if track else None, tensorboard),
            device="auto" if cuda else "cpu",
        )
        with interrupt.honoured():
            stage()
        scores = stage.scores()
        print(
            f"{task}: {scores.last_solved}/{scores.episodes} solved after {scores.steps:,} steps, return "
            f"{scores.last_return:.1f} (best evaluations {scores.best_solved}/{scores.episodes}, "
            f"{scores.best_return:.1f})"
        )
        if capture_video:
            solved = film(stage, folder / "video.mp4")
            print(f"video of an episode that was {'solved' if solved else 'not solved'}: {folder / 'video.mp4'}")
        print(f"run: {folder}")

    return main


def load_online_config(path: Path | None, overrides: Mapping[str, Any], variant: Variant) -> OnlineConfig:
    """A YAML file over the variant's defaults, and over it the flags that are not None."""
    from corl.online_config import OnlineConfig
    from runtime.config import from_mapping, given, merge, read_yaml

    values = merge({"task_ids": variant.task_ids}, read_yaml(path) if path else {})
    return from_mapping(OnlineConfig, merge(values, given(overrides)), source=str(path) if path else "flags")
