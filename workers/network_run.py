"""A network at work as its bundle describes it, whole image after whole image, on the device or else on the CPU."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from dicom_node.core.errors import OutOfDeviceMemory
from workers.inference import CPU, chosen_device, lacks_memory, release_memory

T = TypeVar("T")


class NetworkRun:
    """Runs something with a network, and knows how its last run went."""

    def __init__(self, network: nn.Module, device: str, *, threads: int, beat: Callable[[str], None]) -> None:
        """`beat` is called before each time that the network sees a window; what it raises ends the run."""
        if threads:
            torch.set_num_threads(threads)
        # A program of TorchScript takes no hooks.
        self.network = nn.Sequential(network) if isinstance(network, torch.jit.ScriptModule) else network
        self.device = chosen_device(device)
        #: What the network's last run took, all its tries together.
        self.seconds = 0.0
        #: What the last run did otherwise for want of memory; empty: nothing.
        self.concession = ""
        self._beat = beat

    def __call__(self, work: Callable[[torch.device], T]) -> T:
        """Do the work on the device, or where its memory does not suffice on the CPU; OutOfDeviceMemory otherwise."""
        began = time.monotonic()
        beating = self.network.register_forward_pre_hook(lambda _network, _inputs: self._beat("network"))
        try:
            return self._with_what_there_is(work)
        finally:
            beating.remove()
            self.seconds = time.monotonic() - began

    def _with_what_there_is(self, work: Callable[[torch.device], T]) -> T:
        self.concession = ""
        for number, device in enumerate(dict.fromkeys((self.device, CPU))):
            try:
                self.network.to(device)
                with torch.inference_mode():
                    result = work(device)
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                # Not retried in here: the error holds the frames, and those the tensors.
            else:
                self.concession = "on the CPU" if number else ""
                return result
            release_memory()
        raise OutOfDeviceMemory(f"{self.device} has too little memory for the bundle's windows, and so has the CPU")
