"""The held-out images: what a network that trains is looked at with, always the same, never trained on.

Receives pairs in network units; hands on how well a network restores them. Cheap: a crop of each image, and of many images
an even choice. The scores of the finished package are made elsewhere, on whole images and through the engine that serves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from live_restore.models.nets.layers import Net
from live_restore.score import fit_affine
from live_restore.training.arithmetic import Arithmetic
from live_restore.training.losses import Loss, means_of
from live_restore.training.progress import Example

FloatArray = NDArray[np.float32]

# So many images at most, and of each at most this much, ([Z,] Y, X).
MOST_IMAGES = 24
LARGEST_CROP = {2: (256, 256), 3: (16, 128, 128)}
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutImage:
    """One crop, ([Z,] Y, X) float32 in network units."""

    name: str
    low: FloatArray
    target: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one look at the held-out images told.

    Attributes
    ----------
    loss : float
        Mean over the images, network units.
    psnr_db : float
        Mean over the images after the affine fit.
    examples : list of Example
    took_s : float
    """

    loss: float
    psnr_db: float
    examples: list[Example]
    took_s: float


class HeldOut:
    """A fixed set of crops.

    Parameters
    ----------
    images : sequence of HeldOutImage
    raw_psnr_db : float
        Of the low images as they came.
    """

    def __init__(self, images: Sequence[HeldOutImage]) -> None:
        if not images:
            raise ValueError("there are no held-out images; give at least one")
        self.images = tuple(images)
        self.raw_psnr_db = float(np.mean([psnr_db(image.low, image.target) for image in self.images]))

    @property
    def pixels(self) -> int:
        """In all crops together."""
        return sum(image.low.size for image in self.images)

    @torch.inference_mode()
    def look(self, net: Net, loss: Loss, arithmetic: Arithmetic) -> Look:
        """Restore all and compare; the network is left as it came."""
        started, was_training = time.monotonic(), net.training
        net.eval()
        losses: list[float] = []
        psnrs: list[float] = []
        examples: list[Example] = []
        for image in self.images:
            target = _tensor(image.target, arithmetic)
            with arithmetic.autocast():
                output = net(_tensor(image.low, arithmetic))
            output = output.float()
            losses.append(float(loss.compute(output, target)))
            restored = means_of(output, loss.probabilistic)[0, 0].cpu().numpy()
            psnrs.append(psnr_db(restored, image.target))
            if len(examples) < _EXAMPLES:
                examples.append(Example(image.name, *map(_plane, (image.low, restored, image.target))))
        net.train(was_training)
        return Look(float(np.mean(losses)), float(np.mean(psnrs)), examples, time.monotonic() - started)


def spread(length: int, most: int = MOST_IMAGES) -> list[int]:
    """Choose at most so many places of a list, evenly."""
    number = min(most, length)
    return [place * length // number for place in range(number)]


def psnr_db(image: FloatArray, target: FloatArray) -> float:
    """Peak signal to noise after the affine fit, as `live_restore.score` has it; ([Z,] Y, X) each."""
    slope, offset = fit_affine(_stack(image), _stack(target))
    low, high = np.percentile(target, (0.1, 99.9))
    error = float(np.mean(np.square(slope * image.astype(np.float64) + offset - target)))
    return float(10 * np.log10(max(float(high - low), 1e-12) ** 2 / max(error, 1e-24)))


def _stack(pixels: FloatArray) -> FloatArray:
    stack: FloatArray = pixels.reshape(-1, *pixels.shape[-2:])  # (Z, Y, X)
    return stack


def _plane(pixels: FloatArray) -> FloatArray:
    """Give an image, or the middle plane of a stack; (Y, X)."""
    stack = _stack(pixels)
    plane: FloatArray = stack[len(stack) // 2]
    return plane


def _tensor(pixels: FloatArray, arithmetic: Arithmetic) -> Tensor:
    batch = torch.from_numpy(pixels)[None, None]  # (1, 1, [Z,] Y, X)
    return batch.to(arithmetic.device, memory_format=arithmetic.layout)
