"""The command lines of online learning. The three published scripts are this one program with other prior data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipeline.commands.expert_flags import ExpertFlags
from runtime.errors import ConfigError
from runtime.flags import ConfigFlags, alias, setting

if TYPE_CHECKING:
    from corl.online_config import OnlineConfig
    from offline_compositional_rl_datasets.task import Task
    from pipeline.stages.online import Tracking

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


@dataclass(frozen=True)
class TaskFlags:
    """The task."""

    robot: str
    """such as IIWA; a wrong name is answered with the right ones"""
    obj: str
    """such as Box"""
    obst: str
    """such as ObjectWall, or None"""
    subtask: str
    """such as PickPlace"""

    def task(self) -> Task:
        from offline_compositional_rl_datasets.composuite import CompoSuiteTask

        return CompoSuiteTask(self.robot, self.obj, self.obst, self.subtask)


@dataclass(frozen=True)
class EvaluatedFlags(ConfigFlags):
    """How long an agent learns, and how it is evaluated."""

    config: Path | None = None
    """YAML file with any part of OnlineConfig, see config/online/"""
    max_timesteps: Annotated[int, alias("total_timesteps")] = setting(1_000_000)
    """steps of the environment"""
    num_envs: int = setting(1)
    """environments side by side"""
    eval_freq: int = setting(100_000)
    """steps between evaluations"""
    n_episodes: Annotated[int, alias("n_eval_episodes")] = setting(10)
    """episodes of an evaluation"""

    def online_config(self, variant: Variant) -> OnlineConfig:
        """The flags over a YAML file over the variant's defaults."""
        from corl.online_config import OnlineConfig

        return self.load(OnlineConfig, {"task_ids": variant.task_ids})


@dataclass(frozen=True)
class SACFlags(EvaluatedFlags):
    """How an agent learns."""

    buffer_size: int = setting(1_000_000)
    """own transitions that are kept"""
    discount: Annotated[float, alias("gamma")] = setting(0.99, "sac.discount")
    """of rewards per control step"""
    tau: float = setting(0.005, "sac.tau")
    """share of the way that targets move"""
    batch_size: int = setting(256)
    """transitions per update, prior data included"""
    learning_starts: int = setting(5_000)
    """steps with random actions, before the first update"""
    policy_lr: float = setting(3e-4, "sac.policy_lr")
    """learning rate of the actor"""
    q_lr: float = setting(1e-3, "sac.q_lr")
    """learning rate of critics and temperature"""
    policy_frequency: int = setting(1, "sac.policy_frequency")
    """critic updates per actor update"""
    target_network_frequency: int = setting(1, "sac.target_network_frequency")
    """critic updates per move of the targets"""
    alpha: float = setting(0.2, "sac.alpha")
    """the temperature where it is not learned"""
    autotune: bool = setting(True, "sac.autotune")
    """learn the temperature"""
    horizon: Annotated[int, alias("env_horizon")] = setting(500)
    """control steps per episode"""
    updates_per_step: int = setting(1)
    """critic updates per step of an environment"""
    critics: int = setting(2, "sac.critics")
    """number of critics"""
    target_critics: int = setting(2, "sac.target_critics")
    """how many of them, drawn at random, give the target"""
    layer_norm: Literal["none", "last", "all"] = setting("last", "sac.layer_norm")
    """where the critics normalise: nowhere, behind the last hidden layer or in all"""
    mix_ratio_start: float = setting(0.5, "mix.start")
    """share of prior data in a batch at first"""
    mix_ratio_end: float = setting(0.0, "mix.end")
    """and at last"""
    mix_ratio_decay_steps: int = setting(500_000, "mix.decay_steps")
    """steps from the one to the other"""
    mix_ratio_decay_start: int = setting(500_000, "mix.decay_start")
    """step at which that begins"""


@dataclass(frozen=True)
class PriorFlags(ExpertFlags):
    """Prior data: generated sets, or those of a split's training tasks."""

    base_synthetic_data_path: Path | None = None
    """folder with <TASK>/samples_0.npz (prior data synthetic)"""

    def generated(self, variant: Variant) -> Path | None:
        """The folder of generated sets, where the variant has them. Raises `ConfigError` where it is not given."""
        if variant.prior != "synthetic":
            return None
        if self.base_synthetic_data_path is None:
            raise ConfigError("--base_synthetic_data_path is missing: expected a folder with <TASK>/samples_0.npz")
        return self.base_synthetic_data_path

    def recorded(self, variant: Variant) -> tuple[tuple[Task, Path], ...]:
        """Tasks with their files, where the variant has them. Raises `DataError` for the first that is missing."""
        return self.files() if variant.prior == "real" else ()


@dataclass(frozen=True)
class RunFlags:
    """Where runs go, and on what they run."""

    exp_name: str
    """part of a run's name"""
    wandb_project_name: str
    """project of Weights & Biases"""
    track: bool = False
    """log to Weights & Biases too, offline where there is no network"""
    cuda: bool = True
    """use a GPU where there is one"""
    runs_path: Path | None = None
    """where runs go; default from config/paths.yaml"""

    @property
    def device(self) -> str:
        return "auto" if self.cuda else "cpu"

    def tracking(self, *, tensorboard: bool = False) -> Tracking:
        from pipeline.stages.online import Tracking

        return Tracking(self.wandb_project_name if self.track else None, tensorboard)

    def folder(self, task: Task, seed: int, generated: Path | None) -> Path:
        from pipeline.stages.online import run_name
        from runtime.paths import machine_settings

        return (self.runs_path or machine_settings().runs_path) / run_name(task, self.exp_name, seed, generated)


@dataclass(frozen=True)
class WatchFlags:
    """What is to be looked at beside the results."""

    capture_video: bool = False
    """film an episode of the best policy at the end, to video.mp4 in the run's folder"""
    tensorboard: bool = False
    """log to TensorBoard too"""


def sac_command(variant: Variant) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags."""

    published_task = TaskFlags("IIWA", "Box", "ObjectDoor", "Push")
    published_run, unwatched = RunFlags(variant.exp_name, variant.exp_name), WatchFlags()

    def main(
        agent: SACFlags,
        prior: PriorFlags,
        chosen: TaskFlags = published_task,
        run: RunFlags = published_run,
        seed: int = 1,
        use_composuite: bool = True,
        torch_deterministic: bool = True,
        watched: WatchFlags = unwatched,
    ) -> None:
        """Learn one task online with SAC. The same command run again continues where it was stopped.

        A flag overrides the file of --config.

        Args:
            seed: of networks, actions, episodes and batches
            use_composuite: the only family of tasks here
            torch_deterministic: deterministic cuDNN kernels
        """
        import torch

        from pipeline.report.pictures import film_best
        from pipeline.stages.online import LearnOnline, synthetic_prior
        from runtime import interrupt
        from runtime.logs import configure_logging

        if not use_composuite:
            raise ConfigError("--no-use_composuite: CompoSuite's tasks are the only ones here")
        config = agent.online_config(variant)
        if agent.prints(config):
            return
        task, generated = chosen.task(), prior.generated(variant)
        stage = LearnOnline(
            task=task,
            config=config,
            seed=seed,
            folder=run.folder(task, seed, generated),
            prior=synthetic_prior(generated, task) if generated else prior.recorded(variant),
            synthetic=generated is not None,
            tracking=run.tracking(tensorboard=watched.tensorboard),
            method=run.exp_name,
            device=run.device,
        )
        configure_logging()
        torch.backends.cudnn.deterministic = torch_deterministic
        with interrupt.honoured():
            stage()
        scores = stage.scores()
        print(
            f"{task}: {scores.last_solved}/{scores.episodes} solved after {scores.steps:,} steps, return "
            f"{scores.last_return:.1f} (best evaluations {scores.best_solved}/{scores.episodes}, "
            f"{scores.best_return:.1f})"
        )
        if watched.capture_video:
            solved = film_best(stage, stage.folder / "video.mp4")
            print(f"video of an episode that was {'solved' if solved else 'not solved'}: {stage.folder / 'video.mp4'}")
        print(f"run: {stage.folder}")

    return main
