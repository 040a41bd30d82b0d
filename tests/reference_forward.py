"""The networks once more, in plain numpy and float64, from their description: what the torch networks are compared with.

Receives Keras-layout weights (kernel (k..., in, out), bias (out,)) and one image (..., C), channels last; hands on the image
that the network gives. It shares no line with the package and imports neither it nor torch.
"""

import numpy as np


def conv(image, layer):
    """Correlate (..., C_in) with the kernel, zeros around the image, and add the bias: (..., C_out)."""
    kernel, bias = (np.asarray(part, np.float64) for part in layer)
    sizes = kernel.shape[:-2]
    margins = [((k - 1) // 2, (k - 1) // 2) for k in sizes]
    padded = np.pad(image, [*margins, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, sizes, axis=tuple(range(len(sizes))))  # (..., C_in, k...)
    windows = np.moveaxis(windows, len(sizes), -1)  # (..., k..., C_in)
    return np.tensordot(windows, kernel, axes=len(sizes) + 1) + bias


def relu(x):
    return np.where(x > 0, x, 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def max_pool(image, pool):
    """The maximum of every box, by taking the strided corner planes one after the other."""
    for axis, p in enumerate(pool):
        image = np.max([image.take(range(start, image.shape[axis], p), axis) for start in range(p)], axis=0)
    return image


def upsample(image, pool):
    """Every pixel repeated into a box, by its index."""
    for axis, p in enumerate(pool):
        image = image.take(np.arange(image.shape[axis] * p) // p, axis)
    return image


def fold(image, layer):
    """A convolution whose stride is its kernel: every box of pixels becomes one."""
    kernel, bias = layer
    box = kernel.shape[: image.ndim - 1]
    split = [n for size, k in zip(image.shape[:-1], box, strict=True) for n in (size // k, k)]
    boxes = image.reshape(*split, image.shape[-1])
    within = [2 * axis + 1 for axis in range(len(box))]
    return np.tensordot(boxes, kernel, ([*within, boxes.ndim - 1], list(range(kernel.ndim - 1)))) + bias


def care(image, layers, depth, residual, last_activation, probabilistic, entry=1, skip_kernel=0):
    """CSBDeep's U-Net; `layers` is a dict of (kernel, bias) by CSBDeep's layer names, heads head_mean and head_scale."""
    pool = (2,) * (image.ndim - 1)
    x, skips = image, []
    if entry > 1:
        x = relu(fold(x, layers["fold"]))
    for level in range(depth):
        for i in (0, 1):
            x = relu(conv(x, layers[f"down_level_{level}_no_{i}"]))
        skips.append(x)
        x = max_pool(x, pool)
    x = relu(conv(x, layers["middle_0"]))
    x = relu(conv(x, layers["middle_2"]))
    for level in range(depth - 1, -1, -1):
        x = np.concatenate([upsample(x, pool), skips[level]], axis=-1)
        for i in (0, 2):
            x = relu(conv(x, layers[f"up_level_{level}_no_{i}"]))
    mean = depth_to_space(conv(x, layers["head_mean"]), entry)
    if residual:
        mean = mean + (conv(image, layers["skip"]) if skip_kernel else image)
    if last_activation == "relu":
        mean = relu(mean)
    if probabilistic:
        return np.concatenate([mean, softplus(depth_to_space(conv(x, layers["head_scale"]), entry)) + 1e-3], axis=-1)
    return mean


def surface_projection(volume, layers, n_depth, n_conv, pool):
    """The flattening half of ProjectionCARE: (Z, Y, X, C) to (Y, X, C); `layers` is a list in file order."""
    layers = iter(layers)
    x = volume
    for level in range(2 * n_depth + 1):
        if level:
            x = max_pool(x, pool) if level <= n_depth else upsample(x, pool)
        for _ in range(n_conv):
            x = relu(conv(x, next(layers)))
    weights = softmax(conv(x, next(layers)), axis=0)
    assert next(layers, None) is None
    return np.sum(volume * weights, axis=0)


def depth_to_space(image, factor):
    """TensorFlow's channel order: channel ((z * f + y) * f + x) * C + c goes to pixel (z, y, x) of the box, channel c."""
    n_dim = image.ndim - 1
    sizes, channels = image.shape[:-1], image.shape[-1] // factor**n_dim
    out = np.zeros([size * factor for size in sizes] + [channels])
    for channel in range(image.shape[-1]):
        *place, c = np.unravel_index(channel, (factor,) * n_dim + (channels,))
        out[(*(slice(p, None, factor) for p in place), c)] = image[..., channel]
    return out


def rcan(image, layers, blocks, groups, residual_scaling, upscale):
    """3D-RCAN; `layers` is a list of (kernel, bias) in file order."""
    layers = iter(layers)
    spatial = tuple(range(image.ndim - 1))
    x = long_skip = conv(image * 2 - 1, next(layers))
    for _ in range(groups):
        group_skip = x
        for _ in range(blocks):
            block_skip = x
            x = conv(relu(conv(x, next(layers))), next(layers))
            pooled = x.mean(axis=spatial, keepdims=True)
            weight = sigmoid(conv(relu(conv(pooled, next(layers))), next(layers)))
            x = x * weight * residual_scaling + block_skip
        if groups != 1:
            x = conv(x, next(layers)) + group_skip
    x = conv(x, next(layers)) + long_skip
    for factor in {1: [], 2: [2], 3: [3], 4: [2, 2], 6: [6], 8: [2, 2, 2]}[upscale]:
        x = depth_to_space(conv(x, next(layers)), factor)
    restored = conv(x, next(layers)) * 0.5 + 0.5
    assert next(layers, None) is None
    return restored
