"""The table of operations whose reach is known: which rule says what each makes of an image.

The rules are in `window_rules` and `axis_rules`; this file names them. An operation that is not here makes a graph one that
cannot be measured, and is named in the error.
"""

from collections.abc import Callable
from typing import Any

from live_restore.engines.graphs.onnx_file import Node
from live_restore.models.geometry import axis_rules as axes
from live_restore.models.geometry import window_rules as windows
from live_restore.models.geometry.reach import Value

Rule = Callable[[Node, list[Any]], Value | list[Value]]

# Operations that change a feature where it lies: an engine needs no second copy of it.
POINTWISE = frozenset(
    "Abs Add And BatchNormalization Cast Ceil Celu Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual "
    "HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal "
    "Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Tanh ThresholdedRelu Where".split()
)
_ONLY_FIRST = frozenset(("BatchNormalization", "Clip", "Dropout", "Cast", "Identity"))

_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "ReduceSumSquare",
)

RULES: dict[str, Rule] = {
    **{op: axes.first_only if op in _ONLY_FIRST else axes.pointwise for op in POINTWISE},
    **dict.fromkeys(_REDUCTIONS, axes.reduce),
    "AveragePool": windows.pool,
    "Concat": axes.concatenate,
    "Conv": windows.convolve,
    "ConvTranspose": windows.convolve_transposed,
    "DepthToSpace": windows.to_space,
    "Expand": axes.expand,
    "Flatten": axes.flatten,
    "Gather": axes.gather,
    "GlobalAveragePool": axes.pool_globally,
    "GlobalMaxPool": axes.pool_globally,
    "GroupNormalization": axes.normalise_all,
    "InstanceNormalization": axes.normalise_all,
    "LayerNormalization": axes.normalise_last,
    "LogSoftmax": axes.softmax,
    "MaxPool": windows.pool,
    "Pad": axes.pad,
    "Reshape": axes.reshape,
    "Resize": windows.resize,
    "Shape": axes.shape,
    "Slice": axes.cut,
    "Softmax": axes.softmax,
    "SpaceToDepth": windows.to_depth,
    "Split": axes.split,
    "Squeeze": axes.squeeze,
    "Transpose": axes.transpose,
    "Unsqueeze": axes.unsqueeze,
    "Upsample": windows.resize,
}
