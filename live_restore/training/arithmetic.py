"""The arithmetic of training: device, number format, memory layout, threads.

Receives what the user asked for; hands on what this machine does best, with the reason. It does not know networks or losses.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil
import torch

from live_restore.errors import TrainingError

_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How training computes.

    Attributes
    ----------
    device : torch.device
    precision : {"f32", "bf16", "f16"}
        Of activations; weights, losses and averages are always float32.
    n_dim : int
        2 or 3 spatial axes.
    """

    device: torch.device
    precision: str
    n_dim: int

    @property
    def layout(self) -> torch.memory_format:
        """Channels last: on a CPU two to three times as fast as torch's own order, in 2D and in 3D."""
        return torch.channels_last if self.n_dim == 2 else torch.channels_last_3d

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the short format where that is safe."""
        return torch.autocast(self.device.type, _DTYPES.get(self.precision, torch.bfloat16), enabled=self.precision in _DTYPES)

    def scaler(self) -> torch.amp.GradScaler:
        """Keep small gradients of f16 from vanishing; for the other formats it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "f16")

    def __str__(self) -> str:
        name = (
            torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        )
        return f"{name}, {self.precision}"


def choose_arithmetic(device: str, precision: str, n_dim: int, local_rank: int = 0) -> Arithmetic:
    """Choose device and number format.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    precision : {"auto", "f32", "bf16", "f16"}
    n_dim : int
    local_rank : int
        Which GPU of this machine.

    Raises
    ------
    TrainingError
        If the machine has no such device, or the format is known to go wrong there.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise TrainingError(
            f"no CUDA device can be used by torch {torch.__version__} on this machine; use --device cpu, "
            "or install the CUDA build of torch: https://pytorch.org/get-started/locally"
        )
    if device == "cuda" or (device == "auto" and has_cuda):
        place = torch.device("cuda", local_rank % torch.cuda.device_count())
        short = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f16"
        return Arithmetic(place, short if precision == "auto" else precision, n_dim)
    return Arithmetic(torch.device("cpu"), _on_cpu(precision, n_dim), n_dim)


def _on_cpu(precision: str, n_dim: int) -> str:
    # oneDNN's bfloat16 weight gradients of shallow volumes are wrong by half, and differ from run to run
    if precision == "auto":
        return "bf16" if n_dim == 2 and _cpu_has_bf16() else "f32"
    if precision == "f16":
        raise TrainingError("precision f16 is for GPUs; on a CPU use auto, bf16 or f32")
    if precision == "bf16" and n_dim == 3:
        raise TrainingError("precision bf16 gives wrong gradients in 3D on a CPU (measured: off by half); use auto or f32")
    return precision


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it has to be emulated, float32 is faster."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def set_threads(threads: int | None, processes: int = 1) -> int:
    """Use so many CPU threads, by default the physical cores shared among the processes; give their number."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    wanted = threads or max(1, cores // processes)
    torch.set_num_threads(wanted)
    return wanted
