"""Torch checkpoints as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch


def save_torch(value: Any, path: Path) -> None:
    """Write `value` as `torch.save` does, but by a plain write: a full disk is an `OSError`, not a fault of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())
