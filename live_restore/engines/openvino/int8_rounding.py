"""The rounding of weights to whole numbers, each column making up for the errors of those before it.

Receives a matrix of weights and how the numbers that it meets go together (the sum of their outer products); hands on whole
numbers and what a step is worth. Neighbouring pixels are alike, so an error in one weight can nearly be undone by its
neighbours: the error of a layer's result becomes a fraction of that of plain rounding. The method is GPTQ's (Frantar et al.
2022, arXiv 2210.17323; after Hassibi's and Stork's optimal brain surgeon, 1993). It does not know what a convolution is.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

LEVELS = 127
# Of the mean power, added to every column's: keeps the inverse finite where columns never differ.
_DAMPING = 1e-2
_BLOCK = 128
_SHRINKAGES = (1.0, 0.95, 0.9, 0.85, 0.8)


def rounded(weights: Matrix, powers: Matrix, steps: Matrix) -> NDArray[np.int8]:
    """Round to whole steps so that the results change least.

    Parameters
    ----------
    weights : ndarray, (rows, columns), float64
    powers : ndarray, (columns, columns), float64
        Sum over samples of the outer product of what the weights are multiplied with.
    steps : ndarray, (rows, 1), float64

    Returns
    -------
    ndarray, (rows, columns), int8
        Between -127 and 127.
    """
    order = np.argsort(-np.diag(powers), kind="stable")  # what matters most is rounded while others can still make up for it
    left = weights[:, order].copy()
    inverse = _upper_inverse(powers[np.ix_(order, order)])
    whole = np.empty(left.shape, np.int8)
    columns = left.shape[1]
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        errors = np.empty((left.shape[0], end - begin))
        for place in range(begin, end):
            level = np.clip(np.rint(left[:, place] / steps[:, 0]), -LEVELS, LEVELS)
            whole[:, place] = level
            error = (left[:, place] - level * steps[:, 0]) / inverse[place, place]
            left[:, place:end] -= np.outer(error, inverse[place, place:end])
            errors[:, place - begin] = error
        left[:, end:] -= errors @ inverse[begin:end, end:]
    result = np.empty_like(whole)
    result[:, order] = whole
    return result


def best_steps(weights: Matrix, importance: Matrix) -> Matrix:
    """Choose for every row what a step is worth: a few large weights may be cut where that makes all others finer.

    Parameters
    ----------
    weights : ndarray, (rows, columns), float64
    importance : ndarray, (columns,), float64
        Mean square of what each column is multiplied with.

    Returns
    -------
    ndarray, (rows, 1), float64
    """
    largest: Matrix = np.maximum(np.abs(weights).max(1, keepdims=True) / LEVELS, float(np.finfo(np.float32).tiny))
    tried = [largest * shrinkage for shrinkage in _SHRINKAGES]
    costs = [
        (np.square(np.clip(np.rint(weights / steps), -LEVELS, LEVELS) * steps - weights) * importance).sum(1) for steps in tried
    ]
    best: Matrix = np.choose(np.argmin(costs, axis=0)[:, None], tried)
    return best


def _upper_inverse(powers: Matrix) -> Matrix:
    """Give the upper Cholesky factor of the inverse, whose rows say how the columns to come make up for an error."""
    damping = max(_DAMPING * float(np.diag(powers).mean()), float(np.finfo(np.float32).tiny))
    damped = powers + np.eye(len(powers)) * damping
    inverse = np.linalg.inv(damped)
    return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float64)
