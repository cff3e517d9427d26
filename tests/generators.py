"""Generators that have learned next to nothing, in a second."""

from pathlib import Path

from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig
from offline_compositional_rl_datasets.task import Task
from pipeline.stages.generator import TrainGenerator


def barely_trained(folder: Path, task: Task) -> Path:
    """The checkpoint of a generator that knows the expert data of one task in `folder`/data; the state comes first."""
    checkpoint = folder / "model" / "model-20.pt"
    TrainGenerator(
        data_path=folder / "data",
        dataset_type="expert",
        expert_tasks=(task,),
        sources=(),
        network=DenoiserConfig(hidden=16, depth=1, heads=2, order="state_first"),
        training=TrainConfig(steps=20, small_batch_size=16, delta_next=True, std_offset=1e-3, precision="float32"),
        seed=0,
        checkpoint=checkpoint,
    )()
    return checkpoint
