"""Several processes, on several GPUs or machines, that train one network together: started by torchrun, joined here.

Receives torchrun's environment; hands on which process this is, and means to agree. Every process draws its own part of the
same batch, gradients are averaged by torch's DistributedDataParallel, so all hold the same weights at any step; only the
first one writes. It does not know what is trained.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

# One process may wait so long for another: the first one validates and writes meanwhile.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes that train together; alone, a crew of one.

    Attributes
    ----------
    rank, world : int
        Which of how many.
    local_rank, local_world : int
        The same, counted on this machine.
    device : torch.device
        Where what they tell each other lies.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it cannot change)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def agree(self, number: float) -> float:
        """Give every process the number of the first one."""
        if self.world == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return float(told.item())

    def mean(self, number: float) -> float:
        """Average a number over all processes."""
        if self.world == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64, device=self.device)
        distributed.all_reduce(told)
        return float(told.item()) / self.world

    def together(self, net: torch.nn.Module) -> torch.nn.Module:
        """Wrap a network so that its gradients are averaged over all processes."""
        if self.world == 1:
            return net
        for buffer in net.buffers():
            # as channels-last left them, torch refuses to send them: it takes their strides for an overlap
            buffer.data = buffer.data.clone(memory_format=torch.contiguous_format)
        devices = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(net, device_ids=devices)


def crew_from_environment() -> Crew:
    """Read what torchrun tells its processes; without it, a crew of one. Nothing is joined yet."""
    said = {name: int(os.environ.get(name, default)) for name, default in _SAID.items()}
    return Crew(said["RANK"], said["WORLD_SIZE"], said["LOCAL_RANK"], said["LOCAL_WORLD_SIZE"])


_SAID = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@contextmanager
def joined(crew: Crew, device: torch.device) -> Iterator[Crew]:
    """Join the other processes: gloo between CPUs, nccl between GPUs."""
    if crew.world == 1:
        yield crew
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Crew(crew.rank, crew.world, crew.local_rank, crew.local_world, device)
    finally:
        distributed.destroy_process_group()
