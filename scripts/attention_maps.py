"""Attention between the factor tokens of a trained generator: by layer, head and noise level, and per task axis.

Writes figures (png, pdf) and attention.csv, attention_by_element.csv. Example:
    python -m scripts.attention_maps --checkpoint results/augmented_0/diffusion/MODEL/model-100000.pt --out figures
"""

from __future__ import annotations

from pathlib import Path

from diffusion.attention import SIGMAS
from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    checkpoint: Path,
    out: Path = Path("figures"),
    tasks: tuple[str, ...] = (),
    samples: int = 256,
    sigmas: tuple[float, ...] = SIGMAS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """The generator's own samples of each task are noised and denoised once per level.

    Args:
        checkpoint: of a semantic transformer (dit, DiT1D-...)
        out: folder to write to
        tasks: names such as IIWA_Box_None_Push; default: the tasks that trained the generator
        samples: per task
        sigmas: noise levels in standard deviations of the data
        seed: of the noise
        device: auto, cpu or cuda
    """
    from diffusion.attention import attention_maps, own_samples
    from pipeline.figures import save_figure
    from pipeline.inspection import conditions_of, load_generator
    from pipeline.model_figures import attention_figures, write_attention

    model, conditions = load_generator(checkpoint, device), conditions_of(checkpoint, tasks)
    drawn = own_samples(model, conditions, samples, seed=seed)
    maps = attention_maps(model, drawn, conditions, sigmas=sigmas, seed=seed)
    write_attention(maps, out)
    for name, figure in attention_figures(maps).items():
        save_figure(figure, out / name, ("png", "pdf"))
    print(f"{out}: maps of {len(conditions)} tasks")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
