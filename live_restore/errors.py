"""The errors that somebody may want to catch, drawn as a tree.

::

    LiveRestoreError
    ├── ModelError        a weight file or model package is not what it should be
    ├── EngineError       an engine failed
    │   ├── EngineUnavailable   it is not installed, or this machine cannot run it
    │   └── EngineMismatch      the batch does not fit what the engine was opened for
    ├── ImageError        an image file cannot be read, or does not fit the model
    ├── ConfigError       a hardware configuration or acquisition plan says what cannot be
    ├── WireError         the restore process cannot be reached, or the address cannot be used
    │   └── BadMessage          a message breaks the protocol; it is refused and counted
    ├── AcquisitionError  an acquisition ended otherwise than it was asked to
    ├── PairError         low and high-light images that do not make a pair, or a folder of pairs that cannot be used
    └── TrainingError     training cannot begin, or cannot go on

A wrong argument is a plain ``ValueError`` or ``TypeError``. Every message names the value, the limit and the
cure; the command line prints it as one sentence, without a traceback.
"""


class LiveRestoreError(Exception):
    """Anything that live_restore refuses or fails to do, said in words for its user."""


class ModelError(LiveRestoreError):
    """A weight file or a model package is not what it should be."""


class EngineError(LiveRestoreError):
    """An engine failed."""


class EngineUnavailable(EngineError):
    """The engine is not installed, or this machine cannot run it; the message has the cure."""


class EngineMismatch(EngineError):
    """The batch does not fit what the engine was opened for."""


class ImageError(LiveRestoreError):
    """An image file cannot be read, or does not fit the model it is given to."""


class ConfigError(LiveRestoreError):
    """A hardware configuration or an acquisition plan says what cannot be; the message names the nearest right word."""


class WireError(LiveRestoreError):
    """The restore process cannot be reached, or an address cannot be used."""


class BadMessage(WireError):
    """A message that breaks the protocol: refused with this reason and counted."""


class AcquisitionError(LiveRestoreError):
    """An acquisition ended otherwise than it was asked to: frames missing, devices failed, no progress."""


class PairError(LiveRestoreError):
    """Low and high-light images do not make a pair, or a folder of pairs cannot be read, written or used."""


class TrainingError(LiveRestoreError):
    """Training cannot begin or cannot go on: impossible options, a loss that is no number, another checkpoint."""
