"""Attention between the factor tokens of a trained generator: by layer, head and noise level, and per task axis.

Writes figures (png, pdf) and attention.csv, attention_by_element.csv. Example:
    python -m scripts.attention_maps --checkpoint results/augmented_0/diffusion/MODEL/model-100000.pt --out figures
"""

from __future__ import annotations

from pipeline.analysis.inspection import Inspection
from runtime.cli import parse_flags
from runtime.main import run_main


def main(look: Inspection, samples: int = 256) -> None:
    """The generator's own samples of each task are noised and denoised once per level.

    Args:
        samples: per task
    """
    from diffusion.attention import attention_maps, own_samples
    from pipeline.report.model_figures import attention_figures, write_attention

    model, conditions = look.open()
    drawn = own_samples(model, conditions, samples, seed=look.seed)
    maps = attention_maps(model, drawn, conditions, sigmas=look.sigmas, seed=look.seed)
    write_attention(maps, look.out)
    look.save(attention_figures(maps))
    print(f"{look.out}: maps of {len(conditions)} tasks")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
