"""Crop and flip against a reference that handles one pixel at a time."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_perturb.core import random as keyed_random
from lightning_perturb.data import CenterCrop, CropFlip, RandomCrop, RandomResizedCrop


def images(count=6, channels=3, height=8, width=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def mirrored_index(i, size):
    """Where a mirrored border takes its pixel from; the edge itself is not repeated."""
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i


def naive(x, uniform, padding, mode, flip):
    out = torch.zeros_like(x)
    _, channels, height, width = x.shape
    for n in range(len(x)):
        down = int(float(uniform[n, 0]) * (2 * padding + 1)) - padding
        right = int(float(uniform[n, 1]) * (2 * padding + 1)) - padding
        mirror = flip and float(uniform[n, 2]) < 0.5
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    row, column = i + down, (width - 1 - j if mirror else j) + right
                    if mode == "reflect":
                        row, column = mirrored_index(row, height), mirrored_index(column, width)
                    if 0 <= row < height and 0 <= column < width:
                        out[n, c, i, j] = x[n, c, row, column]
    return out


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(("padding", "height", "width"), [(4, 8, 8), (0, 8, 8), (0, 1, 1), (2, 5, 9), (3, 9, 4)])
def test_crop_and_flip_equal_the_reference(padding, height, width, mode, flip):
    x = images(height=height, width=width)
    uniform = torch.rand(len(x), 3, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    out = CropFlip(padding=padding, mode=mode, flip=flip)(x, uniform)
    assert out.dtype == torch.uint8
    assert torch.equal(out, naive(x, uniform, padding, mode, flip))
    assert torch.equal(x, before)
    assert out.is_contiguous()
    out.zero_()  # a result of its own, not a view of the input
    assert torch.equal(x, before)


@pytest.mark.parametrize("padding", [1, 4, 32])
def test_extreme_draws_stay_inside_the_padded_image(padding):
    x = images(count=2, height=40, width=40)
    lowest, highest = 0.0, 1.0 - 2.0**-24
    uniform = torch.tensor([[lowest, lowest, 0.9], [highest, highest, 0.9]])
    out = CropFlip(padding=padding)(x, uniform)
    expected = torch.zeros_like(x)
    expected[0, :, padding:, padding:] = x[0, :, :-padding, :-padding]
    expected[1, :, :-padding, :-padding] = x[1, :, padding:, padding:]
    assert torch.equal(out, expected)


def test_every_shift_and_both_directions_are_equally_likely():
    # an image whose pixels name their place, so that the top left pixel of the crop tells the shift
    place = torch.arange(1, 26, dtype=torch.uint8).reshape(1, 1, 5, 5)
    count = 9000
    uniform = keyed_random.uniform(0, "test", 0, torch.arange(count), 3)
    out = CropFlip(padding=1, mode="reflect")(place.expand(count, 1, 5, 5), uniform)
    flipped = out[:, 0, 2, 0] > out[:, 0, 2, 4]
    assert abs(float(flipped.float().mean()) - 0.5) < 0.03
    middle = out[:, 0, 2, 2]
    shares = torch.bincount(middle.long()).float() / count
    shifts = [7, 8, 9, 12, 13, 14, 17, 18, 19]
    assert shares.nonzero().flatten().tolist() == shifts
    assert (shares[shifts] - 1 / 9).abs().max() < 0.02


def test_strided_input_and_empty_batch():
    x, uniform = images(), torch.rand(6, 3)
    expected = CropFlip()(x, uniform)
    assert torch.equal(CropFlip()(x.contiguous(memory_format=torch.channels_last), uniform), expected)
    assert CropFlip()(x[:0], uniform[:0]).shape == (0, 3, 8, 8)


def test_errors_name_argument_and_remedy():
    with pytest.raises(ValueError, match="padding=-1 is negative"):
        CropFlip(padding=-1)
    with pytest.raises(ValueError, match="mode='wrap' is unknown"):
        CropFlip(mode="wrap")
    with pytest.raises(ValueError, match="padding=8 cannot mirror images of 8 x 8"):
        CropFlip(padding=8, mode="reflect")(images(), torch.rand(6, 3))
    with pytest.raises(ValueError, match="padding=5 cannot mirror images of 9 x 4"):
        CropFlip(padding=5, mode="reflect")(images(height=9, width=4), torch.rand(6, 3))


# a random part, resized ---------------------------------------------------------------------------------------------


def draws(*rows):
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_part_equals_a_crop_and_a_resize(channels):
    x = images(count=40, channels=channels, height=20, width=30)
    uniform = torch.rand(40, 5, generator=torch.Generator().manual_seed(3))
    augment = RandomResizedCrop(12, area=(0.1, 0.9), ratio=(0.5, 2.0))
    out = augment(x, uniform)
    assert out.shape == (40, channels, 12, 12)
    for image, row, u in zip(x, out, uniform.double().numpy(), strict=True):
        area = 600 * (0.1 + 0.8 * u[0])
        ratio = 0.5 * 4.0 ** u[1]
        width, height = min(round((area * ratio) ** 0.5), 30), min(round((area / ratio) ** 0.5), 20)
        left, top = int(u[2] * (30 - width + 1)), int(u[3] * (20 - height + 1))
        part = image[:, top : top + height, left : left + width].numpy()
        planes = [Image.fromarray(plane).resize((12, 12), Image.Resampling.BILINEAR) for plane in part]
        expected = np.stack([np.asarray(plane) for plane in planes])
        expected = expected[..., ::-1] if u[4] < 0.5 else expected
        np.testing.assert_array_equal(row.numpy(), expected)


def test_the_whole_image_stays_as_it_is():
    x = images(count=3, height=12, width=12)
    augment = RandomResizedCrop(12, area=(1.0, 1.0), ratio=(1.0, 1.0))
    out = augment(x, draws([0.3, 0.1, 0.9, 0.9, 0.9]).expand(3, 5))
    assert torch.equal(out, x)
    mirrored = augment(x, draws([0.3, 0.1, 0.9, 0.9, 0.1]).expand(3, 5))
    assert torch.equal(mirrored, x.flip(-1))
    assert torch.equal(RandomResizedCrop(12, (1.0, 1.0), (1.0, 1.0), flip=False)(x, draws([0] * 5).expand(3, 5)), x)


def test_parts_reach_every_place_and_never_beyond():
    x = torch.zeros(500, 1, 10, 10, dtype=torch.uint8)
    x[:, :, 0, 0] = x[:, :, -1, -1] = 255
    uniform = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    out = RandomResizedCrop(5, area=(0.2, 0.5), flip=False)(x, uniform)
    assert (out[:, 0, 0, 0] > 0).any()
    assert (out[:, 0, -1, -1] > 0).any()
    extreme = draws([0.0, 0.0, 0.0, 0.0, 0.9], [0.999, 0.999, 0.999, 0.999, 0.9])
    RandomResizedCrop(5, area=(0.001, 1.0), ratio=(0.01, 100.0))(x[:2], extreme)


def test_the_middle():
    x = images(height=9, width=12)
    assert torch.equal(CenterCrop(5)(x, torch.empty(6, 0)), x[..., 2:7, 3:8])
    assert CenterCrop.draws == 0
    with pytest.raises(ValueError, match=r"size=10 does not fit in images of 9 x 12"):
        CenterCrop(10)(x, torch.empty(6, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0 must be"),
        ({"area": (0.0, 1.0)}, r"area=\(0.0, 1.0\) is no interval above 0 up to 1"),
        ({"area": (0.5, 1.5)}, r"area=\(0.5, 1.5\)"),
        ({"ratio": (2.0, 1.0)}, r"ratio=\(2.0, 1.0\) is no interval above 0"),
    ],
)
def test_parts_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(**{"size": 4, **options})


def test_a_random_square_is_where_the_numbers_say():
    x = torch.arange(2 * 3 * 7 * 9, dtype=torch.int32).remainder(256).to(torch.uint8).reshape(2, 3, 7, 9)
    # the largest number below one reaches the last place and not beyond
    uniform = torch.tensor([[0.0, 1 - 2**-24, 0.9], [0.5, 0.3, 0.2]])
    out = RandomCrop(5)(x, uniform)
    assert torch.equal(out[0], x[0, :, 0:5, 4:9])
    assert torch.equal(out[1], x[1, :, 1:6, 1:6].flip(-1))
    assert torch.equal(RandomCrop(5, flip=False)(x, uniform)[1], x[1, :, 1:6, 1:6])
    assert torch.equal(RandomCrop(7, flip=False)(x[..., :7], uniform), x[..., :7])
    with pytest.raises(ValueError, match="size=8 does not fit in images of 7 x 9"):
        RandomCrop(8)(x, uniform)
