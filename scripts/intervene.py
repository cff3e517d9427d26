"""Which factors of a generated transition change with one element's id, and with one token.

Writes two figures (png, pdf) and swap_ids.csv, swap_ids_matrix.csv, swap_tokens.csv. Example:
    python -m scripts.intervene --checkpoint results/augmented_0/diffusion/MODEL/model-100000.pt --out figures
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
    samples: int = 128,
    sigmas: tuple[float, ...] = SIGMAS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Ids are exchanged within the elements that the tasks have, all pairs; tokens within a task.

    Args:
        checkpoint: of a semantic transformer (dit, DiT1D-...)
        out: folder to write to
        tasks: names such as IIWA_Box_None_Push; default: the tasks that trained the generator
        samples: per task and exchange
        sigmas: noise levels of the exchange of tokens
        seed: of the noise, which is the same before and after
        device: auto, cpu or cuda
    """
    from diffusion.attention import own_samples
    from diffusion.interventions import NOISE, axis_matrix, swap_ids, swap_tokens
    from pipeline.figures import save_figure
    from pipeline.inspection import conditions_of, load_generator
    from pipeline.model_figures import id_figure, token_figure, write_interventions

    model, conditions = load_generator(checkpoint, device), conditions_of(checkpoint, tasks)
    layout = model.normalizer.layout
    swaps = swap_ids(model, conditions, samples, seed=seed)
    drawn = own_samples(model, conditions, samples, seed=seed)
    effects = swap_tokens(model, drawn, conditions, sigmas=sigmas, seed=seed)
    write_interventions(swaps, effects, layout, sigmas, out)
    save_figure(id_figure(swaps, layout), out / "swap_ids", ("png", "pdf"))
    save_figure(token_figure(effects, layout, sigmas), out / "swap_tokens", ("png", "pdf"))
    for axis, change in axis_matrix(swaps).items():
        most = sorted(zip(change, (token.name for token in layout.tokens), strict=True), reverse=True)[:4]
        print(
            f"{'other' if axis == NOISE else 'another'} {axis}: "
            + ", ".join(f"{name} {value:.2f}" for value, name in most)
        )
    print(f"{out}: {len(swaps)} exchanges of ids, {len(conditions)} tasks")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
