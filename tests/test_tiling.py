"""Tiles cover an image exactly once, stay within memory, and see what the whole image shows."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from live_restore.restore.tiling import Space, TooLittleMemory, tiles, window_shape


@st.composite
def spaces(draw):
    n_dim = draw(st.integers(2, 3))
    axis = st.tuples(st.integers(1, 60), st.integers(0, 9), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 3]))
    axes = draw(st.lists(axis, min_size=n_dim, max_size=n_dim))
    shape, halo, step, factor = zip(*axes, strict=True)
    return shape, Space(halo, step, factor)


@settings(max_examples=300, deadline=None)
@given(spaces(), st.integers(60, 60000))
def test_cores_cover_the_image_once_and_windows_fit(space_and_shape, max_pixels):
    shape, space = space_and_shape
    try:
        window = window_shape(shape, space, max_pixels)
    except ValueError:
        assume(False)
    image = np.random.default_rng(0).random((1, *shape))
    doubled = image
    for axis, factor in enumerate(space.output_factor):
        doubled = np.repeat(doubled, factor, axis + 1)
    seen = np.zeros(space.output_shape(shape), int)
    ones = (1,) * len(shape)
    for tile in tiles(shape, window, space):
        view = tile.take(image)
        assert view.shape[1:] == tile.shape == window
        assert all(size % step == 0 for size, step in zip(window, space.divisible_by, strict=True))
        assert np.prod(window) <= max_pixels
        seen[tile.core_in_image(space.output_factor)] += 1
        np.testing.assert_array_equal(view[0][tile.core_in_window(ones)], image[0][tile.core_in_image(ones)])
    assert (seen == 1).all()


@settings(max_examples=200, deadline=None)
@given(spaces(), st.integers(60, 60000))
def test_every_core_pixel_has_its_halo_or_the_end_of_the_image(space_and_shape, max_pixels):
    shape, space = space_and_shape
    try:
        window = window_shape(shape, space, max_pixels)
    except ValueError:
        assume(False)
    padding = space.padding(shape)
    for tile in tiles(shape, window, space):
        for span, halo, size, (before, after) in zip(tile.spans, space.halo, shape, padding, strict=True):
            assert span.core_start - span.start >= halo or span.start == -before
            assert span.stop - span.core_stop >= halo or span.stop == size + after


def test_an_image_that_fits_is_one_tile():
    space = Space((43, 43), (4, 4), (1, 1))
    assert window_shape((510, 511), space, 10**9) == (512, 512)
    (tile,) = tiles((510, 511), (512, 512), space)
    assert [(span.start, span.stop) for span in tile.spans] == [(-1, 511), (0, 512)]


def test_a_projected_axis_is_never_split():
    space = Space((20, 94, 94), (1, 16, 16), (0, 1, 1))
    window = window_shape((40, 2048, 2048), space, 40 * 512 * 512)
    assert window[0] == 40
    assert space.output_shape((40, 64, 64)) == (1, 64, 64)


def test_little_memory_costs_more_tiles_not_more_memory():
    space = Space((43, 43), (4, 4), (1, 1))
    work = []
    for max_pixels in (10**7, 10**6, 10**5):
        window = window_shape((2048, 2048), space, max_pixels)
        work.append(len(list(tiles((2048, 2048), window, space))))
        assert np.prod(window) <= max_pixels
    assert work == sorted(work) and work[0] == 1


def test_too_little_memory_is_said():
    space = Space((43, 43), (4, 4), (1, 1))
    with pytest.raises(TooLittleMemory, match="a memory for 1000 pixels is too small: the smallest tile has 8464"):
        window_shape((2048, 2048), space, 1000)
