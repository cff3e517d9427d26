"""The time of one paper-scale IIWA iteration, as the sum of measured parts.

Example: python -m benchmarks.iteration --cores 16 --json iteration.json

Sizes are those of `benchmarks.paper_scale`. Policies are evaluated beside training where a GPU trains, so that
only what takes longer counts, else on the same cores.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Literal

from benchmarks import data, env, sample, train, validate
from benchmarks.paper_scale import CONTROL_STEPS, EXPERTS, POLICIES, TARGETS
from runtime.atomic import read_json, write_json
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import ConfigError
from runtime.main import run_main


def main(
    cores: int = 0,
    env_steps: float = 0.0,
    solver: Literal["dpmpp_2m_8", "dpmpp_2m_16", "heun_churn_128"] = "dpmpp_2m_8",
    device: str = "auto",
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Run the other benchmarks and add up.

    Args:
        cores: that evaluate (0: those of this machine)
        env_steps: control steps per second of one core (0: measured, which needs the simulator here)
        solver: dpmpp_2m_8, dpmpp_2m_16 or heun_churn_128 (its steps at the end)
        device: auto, cpu or cuda[:N]
        quick: small sizes: the parts' figures are then rough
        json: file for the figures
    """
    cores = cores or cpu_count()
    expect_sizes(cores=cores)
    if not 0 <= env_steps < math.inf:
        raise ConfigError(f"--env_steps {env_steps}: expected 0 (measured here) or more")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train.main(device=device, quick=quick, json=folder / "train.json")
        sample.main(device=device, quick=quick, json=folder / "sample.json")
        validate.main(device=device, quick=quick, json=folder / "validate.json")
        data.main(quick=quick, json=folder / "data.json")
        parts = {file.stem: read_json(file) for file in folder.glob("*.json")}
    reading = parts["data"]["measurements"][0]
    per_file = parts["data"]["result_gigabytes"] * 1e9 / reading["achieved"]
    per_file *= 1.0 if not quick else 1_000_000 / 20_000
    rate = env_steps or env.measure("IIWA_Box_None_PickPlace", 1.0 if quick else 6.0)["ours"]
    evaluation = CONTROL_STEPS / rate / cores / 60
    policies = parts["validate"][f"minutes_for_{POLICIES}_policies"]
    # On a CPU training has the cores that evaluation would have beside it.
    beside = pick_device(device).type == "cuda"
    evaluating = f"evaluate them on {cores} cores, {'beyond' if beside else 'after'} training"
    minutes = {
        "read 14 expert files": EXPERTS * per_file / 60,
        "train the generator": parts["train"]["minutes_for_100k_steps"],
        f"generate {TARGETS} tasks, {solver}": TARGETS * parts["sample"][f"minutes_for_1M_samples_{solver}"],
        f"train {POLICIES} policies": policies,
        evaluating: max(0.0, evaluation - policies) if beside else evaluation,
    }
    minutes["in all"] = sum(minutes.values())
    print()
    for what, value in minutes.items():
        print(f"{what:50s} {value:14,.1f} minutes")
    if json:
        write_json(json, {"minutes": minutes, "parts": parts, "evaluation_minutes": evaluation, "env_steps": rate})


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
