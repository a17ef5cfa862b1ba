"""Number formats of a training step: full, or half where the device computes in it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from workers.precision import has_bfloat16_units

#: By the name in an experiment; "auto" is bf16 on a device that has units for it, else fp32.
FORMATS: Mapping[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How a step computes on a device; fp16 scales its loss, since its gradients would vanish."""

    def __init__(self, name: str, device: str) -> None:
        self._kind = torch.device(device).type
        if name == "auto":
            name = "bf16" if has_bfloat16_units(self._kind) else "fp32"
        if name not in FORMATS:
            raise ValueError(f"unknown precision {name!r}: training.precision takes auto, {', '.join(FORMATS)}")
        if name == "fp16" and self._kind == "cpu":
            raise ValueError("fp16 has too small a range to train with on a CPU: training.precision = bf16 or fp32")
        self._format = FORMATS[name]
        self.scaler = torch.amp.GradScaler(self._kind, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which network and loss are computed."""
        if self._format is None:
            return nullcontext()
        return torch.autocast(self._kind, dtype=self._format)
