"""The loop's command line. The published entry points are this one program with other defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.commands.job_flags import LoopRetryFlags, WandbFlags
from pipeline.commands.pipeline_flags import LoopFlags

if TYPE_CHECKING:
    from pipeline.loop.run import Run

# Worker processes import their parent's script: the rest is imported where it is needed.


def loop_command(
    denoiser: str = "dit", num_train: int = 14, experiment_type: str = "component-wise"
) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags.

    The defaults given here lie under the configuration file as the file lies under the flags.
    """
    published = LoopFlags(denoiser=denoiser, num_train=num_train)

    def main(retry: LoopRetryFlags, metrics: WandbFlags, loop: LoopFlags = published, dry_run: bool = False) -> None:
        """Train the generator, generate data for unseen tasks, validate it in the simulator, keep what is good; repeat.

        A flag overrides the file of --config.

        Args:
            dry_run: say what is done and what would be done next, and do nothing
        """
        from pipeline.loop.run import Run
        from runtime.logs import configure_logging

        under = {"experiment_type": experiment_type, "retry": retry.defaults()}
        config = loop.pipeline_config({"retry": retry.overrides()}, under)
        if loop.prints(config):
            return
        configure_logging()
        metrics.use()
        run = Run.of(config)
        if dry_run:
            from pipeline.results.status import plan

            print(plan(run))
            return
        watched(run)

    return main


def watched(run: Run) -> Run:
    """Carry a run to its end, with its tables and its page."""
    from pipeline.loop.runner import carry_out
    from pipeline.report.page import Page
    from pipeline.results.tables import Tables

    return carry_out(run, (Tables(), Page()))
