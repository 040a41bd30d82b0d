"""The card that TensorRT's plans are run on: its driver, the TensorRT that serves it, and where its plans are kept.

Receives nothing; hands on the three together, or says what is missing. It loads no TensorRT before there is a card, and does
not know networks.
"""

from dataclasses import dataclass

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.cuda.calls import Cuda
from live_restore.engines.tensorrt.flavour import INSTALL, Flavour, flavour_for
from live_restore.errors import EngineUnavailable


@dataclass(frozen=True, slots=True, eq=False)
class Card:
    """What plans are run with.

    Attributes
    ----------
    cuda : Cuda
    flavour : Flavour
        Of TensorRT.
    cache : EngineCache
    """

    cuda: Cuda
    flavour: Flavour
    cache: EngineCache


def this_card() -> Card:
    """Give the first CUDA device, the installed TensorRT that serves it, and this user's cache.

    Raises
    ------
    EngineUnavailable
        If there is no device, no TensorRT for it, or nothing to ask for them with.
    """
    try:
        from live_restore.engines.cuda.runtime import CudaRuntime
    except ImportError as missing:
        raise EngineUnavailable(f"no CUDA device can be asked for, which needs: {INSTALL} ({missing})") from missing
    cuda = CudaRuntime()
    return Card(cuda, flavour_for(cuda.device().capability), EngineCache())
