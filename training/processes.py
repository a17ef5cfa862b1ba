"""The processes of one training: one on a CPU or GPU, or several under torchrun, each with a share of every batch."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many processes this is, and its device."""

    rank: int
    count: int
    device: str

    @property
    def first(self) -> bool:
        """Whether this one writes: logs, checkpoints, the progress bar."""
        return self.rank == 0

    def share(self, numbers: Sequence[int]) -> Sequence[int]:
        """This process's examples of a batch; every process has equally many, so that the mean of means is the mean."""
        if len(numbers) % self.count:
            raise ValueError(
                f"a batch of {len(numbers)} is not divided among {self.count} processes: change data.batch"
            )
        return numbers[self.rank :: self.count]

    def joined(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes."""
        if self.count == 1:
            return network
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return DistributedDataParallel(network, device_ids=devices)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """The processes that torchrun started (its RANK, LOCAL_RANK and WORLD_SIZE), or this one alone."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device)
    if count == 1:
        yield Processes(rank=0, count=1, device=chosen)
        return
    distributed.init_process_group("nccl" if chosen.startswith("cuda") else "gloo")
    try:
        yield Processes(rank=rank, count=count, device=chosen)
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> str:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
    return name
