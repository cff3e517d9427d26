"""The loop's stages, functions from files to files: what the job layer runs."""

from __future__ import annotations

from pipeline.generator_stages import Generate, TrainGenerator
from pipeline.policy_stages import TrainPolicies, TrainPolicy, in_groups
from pipeline.practice_stage import Practise
from pipeline.stage import StageProgress, is_done, key_of

Stage = TrainGenerator | Generate | Practise | TrainPolicy | TrainPolicies

__all__ = [
    "Generate",
    "Practise",
    "Stage",
    "StageProgress",
    "TrainGenerator",
    "TrainPolicies",
    "TrainPolicy",
    "in_groups",
    "is_done",
    "key_of",
]
