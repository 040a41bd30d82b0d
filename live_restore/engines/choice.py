"""The choice of engine and precision for one model on this machine, with its reason in words.

Receives a graph, the model's own test image with its float32 result, and what the user asked for; hands on an open engine.
What is asked for by name is taken or refused, never replaced. It does not know what a model package is.
"""

from dataclasses import dataclass

import numpy as np

from live_restore.engines.engine import Engine, FloatArray, open_engine, what_is_offered
from live_restore.errors import EngineMismatch, EngineUnavailable

AUTO = "auto"

# For "auto": the first that this machine has.
_BEST_FIRST = ("openvino",)

# bf16 is taken if it differs from float32 by no more than this, rms, relative to the range of the test image.
BF16_LIMIT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen, and why.

    Attributes
    ----------
    kind, precision : str
        As in ``engine.spec``.
    why : str
        One sentence for the screen and the record.
    error : float or None
        Measured rms difference between bf16 and float32 on the test image, relative to its range; None if it was not
        measured, because the precision was asked for or the machine has only one.
    engine : Engine
        Open; it belongs to whoever called `choose`.
    """

    kind: str
    precision: str
    why: str
    error: float | None
    engine: Engine


def choose(
    onnx: bytes,
    test_input: FloatArray,
    test_output: FloatArray,
    kind: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
) -> Choice:
    """Choose engine and precision, and open it.

    Parameters
    ----------
    onnx : bytes
    test_input, test_output : ndarray, (N, C, [Z,] Y, X), float32
        The model's test image and what the network makes of it in float32. Small ones (128 x 128) keep this quick.
    kind : str
        A name in `live_restore.engines.engine.ENGINES`, or "auto": the best that this machine has.
    precision : {"auto", "f32", "bf16"}
        "auto": bf16 if the machine computes it natively and the test image comes out within `BF16_LIMIT` of float32.
    threads : int, optional
        CPU threads.

    Returns
    -------
    Choice

    Raises
    ------
    EngineUnavailable
        If what was asked for by name is not to be had here.
    EngineMismatch
        If the graph does not make an image of the test output's shape from the test input.
    """
    kind = _best() if kind == AUTO else kind
    if precision != AUTO:
        engine = open_engine(kind, onnx, precision, threads)
        return Choice(kind, precision, f"{precision}: as asked for", None, engine)
    offer = what_is_offered(kind)
    if "bf16" not in offer.precisions:
        return Choice(
            kind, "f32", f"f32: {offer.why_not or 'this engine has no bf16'}", None, open_engine(kind, onnx, "f32", threads)
        )
    return _tried(kind, onnx, test_input, test_output, threads)


def _best() -> str:
    refusals = []
    for kind in _BEST_FIRST:
        try:
            what_is_offered(kind)
        except EngineUnavailable as refused:
            refusals.append(str(refused))
        else:
            return kind
    raise EngineUnavailable(f"no engine can run here: {'; '.join(refusals)}")


def _tried(kind: str, onnx: bytes, test_input: FloatArray, test_output: FloatArray, threads: int | None) -> Choice:
    """Take bf16 if the test image allows it."""
    engine = open_engine(kind, onnx, "bf16", threads)
    try:
        error = relative_error(engine.infer(test_input)[0], test_output)
    except BaseException:
        engine.close()
        raise
    if error <= BF16_LIMIT:
        return Choice(kind, "bf16", f"bf16: this machine computes it natively, and {_difference(error)}", error, engine)
    engine.close()
    reason = (
        "the model's test image is flat, so that bf16 cannot be judged" if np.isnan(error) else f"in bf16 {_difference(error)}"
    )
    return Choice(kind, "f32", f"f32: {reason}", error, open_engine(kind, onnx, "f32", threads))


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    """Measure the rms difference between two images, relative to the range (p99.9 - p0.1) of the expected one.

    Returns
    -------
    float
        nan if the expected image is flat.

    Raises
    ------
    EngineMismatch
        If the shapes differ.
    """
    if found.shape != expected.shape:
        raise EngineMismatch(
            f"the graph gives {found.shape} for the model's test image; its test output has {expected.shape}, so the package "
            "does not belong together: import the model again"
        )
    low, high = np.percentile(expected, (0.1, 99.9))
    difference = np.sqrt(np.mean(np.square(found - expected, dtype=np.float64)))
    return float(difference / (high - low)) if high > low else float("nan")


def _difference(error: float) -> str:
    return f"the model's test image differs from float32 by {_short(error)} of its range (limit {_short(BF16_LIMIT)})"


def _short(number: float) -> str:
    """Write 4.1e-4 for 0.00041."""
    digits, _, power = f"{number:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}" if power else digits
