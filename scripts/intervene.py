"""Which factors of a generated transition change with one element's id, and with one token.

Writes two figures (png, pdf) and swap_ids.csv, swap_ids_matrix.csv, swap_tokens.csv. Example:
    python -m scripts.intervene --checkpoint results/augmented_0/diffusion/MODEL/model-100000.pt --out figures
"""

from __future__ import annotations

from pipeline.analysis.inspection import Inspection
from runtime.cli import parse_flags
from runtime.main import run_main


def main(look: Inspection, samples: int = 128) -> None:
    """Ids are exchanged within the elements that the tasks have, all pairs; tokens within a task, per noise level.

    Args:
        samples: per task and exchange; the noise is the same before and after
    """
    from diffusion.attention import own_samples
    from diffusion.interventions import NOISE, axis_matrix, swap_ids, swap_tokens
    from pipeline.report.model_figures import id_figure, token_figure, write_interventions

    model, conditions = look.open()
    layout = model.normalizer.layout
    swaps = swap_ids(model, conditions, samples, seed=look.seed)
    drawn = own_samples(model, conditions, samples, seed=look.seed)
    effects = swap_tokens(model, drawn, conditions, sigmas=look.sigmas, seed=look.seed)
    write_interventions(swaps, effects, layout, look.sigmas, look.out)
    look.save({"swap_ids": id_figure(swaps, layout), "swap_tokens": token_figure(effects, layout, look.sigmas)})
    for axis, change in axis_matrix(swaps).items():
        most = sorted(zip(change, (token.name for token in layout.tokens), strict=True), reverse=True)[:4]
        print(
            f"{'other' if axis == NOISE else 'another'} {axis}: "
            + ", ".join(f"{name} {value:.2f}" for value, name in most)
        )
    print(f"{look.out}: {len(swaps)} exchanges of ids, {len(conditions)} tasks")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
