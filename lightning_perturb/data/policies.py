"""Augmentations that draw operations from a list: RandAugment and AutoAugment, on whole batches of uint8 images."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import functional as F

from lightning_perturb.checks import check_choice, check_positive, check_range
from lightning_perturb.data.augment import Augmentation

Operation = Callable[[Tensor, float, float], Tensor]


def _sheared(x: Tensor, shear: tuple[float, float], fill: float) -> Tensor:
    degrees = [math.degrees(math.atan(part)) for part in shear]
    found: Tensor = F.affine(x, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, fill=fill, center=[0, 0])
    return found


def _moved(x: Tensor, shares: tuple[float, float], fill: float) -> Tensor:
    height, width = x.shape[-2:]
    # of an image of 331 pixels, on which the operations were published, 150
    pixels = [int(share * 150 / 331 * size) for share, size in zip(shares, (width, height), strict=True)]
    found: Tensor = F.affine(x, angle=0.0, translate=pixels, scale=1.0, shear=[0.0, 0.0], fill=fill)
    return found


# from images, strength in [-1, 1] and fill; at strength 0 those of _SIGNED leave the image as it is
_OPERATIONS: dict[str, Operation] = {
    "Identity": lambda x, strength, fill: x,
    "ShearX": lambda x, strength, fill: _sheared(x, (0.3 * strength, 0.0), fill),
    "ShearY": lambda x, strength, fill: _sheared(x, (0.0, 0.3 * strength), fill),
    "TranslateX": lambda x, strength, fill: _moved(x, (strength, 0.0), fill),
    "TranslateY": lambda x, strength, fill: _moved(x, (0.0, strength), fill),
    "Rotate": lambda x, strength, fill: F.rotate(x, 30.0 * strength, fill=fill),
    "Brightness": lambda x, strength, fill: F.adjust_brightness(x, 1 + 0.9 * strength),
    "Color": lambda x, strength, fill: F.adjust_saturation(x, 1 + 0.9 * strength),
    "Contrast": lambda x, strength, fill: F.adjust_contrast(x, 1 + 0.9 * strength),
    "Sharpness": lambda x, strength, fill: F.adjust_sharpness(x, 1 + 0.9 * strength),
    "Posterize": lambda x, strength, fill: F.posterize(x, 8 - round(4 * strength)),
    "Solarize": lambda x, strength, fill: F.solarize(x, 255 * (1 - strength)),
    "AutoContrast": lambda x, strength, fill: F.autocontrast(x),
    "Equalize": lambda x, strength, fill: F.equalize(x),
    "Invert": lambda x, strength, fill: F.invert(x),
}
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
# those of RandAugment, which does not invert
_RANDOM = tuple(name for name in _OPERATIONS if name != "Invert")


class DrawnOperations(Augmentation):
    """Operations on images, drawn for each image and done to all images of the same draw at once.

    Args:
        fill: Value of pixels that come from outside the image, from 0 to 255.
    """

    def __init__(self, fill: int) -> None:
        check_range("fill", fill, 0, 255)
        self.fill = fill

    def _done(self, x: Tensor, chosen: Sequence[tuple[str, float]]) -> Tensor:
        """Every image after its operation at its strength."""
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"{type(self).__name__} takes uint8 images of 1 or 3 channels, [B, C, H, W], not {x.dtype} of "
                f"{tuple(x.shape)}. Leave it away for other inputs."
            )
        rows: dict[tuple[str, float], list[int]] = {}
        for row, choice in enumerate(chosen):
            rows.setdefault(choice, []).append(row)
        out = torch.empty_like(x)
        for (name, strength), own in rows.items():
            out[own] = _OPERATIONS[name](x[own], strength, float(self.fill))
        return out


def _signed(name: str, strength: float, draw: float) -> float:
    return -strength if name in _SIGNED and draw < 0.5 else strength


class RandAugment(DrawnOperations):
    """Operations in turn, drawn from 14 alike, all at one magnitude (Cubuk et al., 2020).

    The operations and their ranges are torchvision's: identity, shear, translate, rotate, brightness, colour, contrast,
    sharpness, posterize, solarize, automatic contrast, equalize. Put it behind crop and flip with
    :class:`~lightning_perturb.data.AugmentChain`.

    Args:
        operations: How many operations an image goes through.
        magnitude: Their magnitude, from 0 to 30.
        fill: Value of pixels that come from outside the image; 128 is grey.
    """

    def __init__(self, operations: int = 2, magnitude: float = 9, fill: int = 128) -> None:
        super().__init__(fill)
        check_positive("operations", operations)
        check_range("magnitude", magnitude, 0, 30)
        self.operations = operations
        self.magnitude = magnitude
        self.draws = 2 * operations

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Augments, see :class:`Augmentation`."""
        strength = self.magnitude / 30
        for place in range(self.operations):
            operation = (uniform[:, 2 * place] * len(_RANDOM)).long().tolist()
            sign = uniform[:, 2 * place + 1].tolist()
            names = [_RANDOM[number] for number in operation]
            x = self._done(x, [(n, _signed(n, strength, s)) for n, s in zip(names, sign, strict=True)])
        return x


class AutoAugment(DrawnOperations):
    """One of 25 learned pairs of operations, each with its probability and magnitude (Cubuk et al., 2019).

    Pairs, operations and their ranges are torchvision's.

    Args:
        policy: The data set that the pairs were learned on: ``cifar10``, ``imagenet`` or ``svhn``.
        fill: Value of pixels that come from outside the image; 128 is grey.
    """

    def __init__(self, policy: Literal["cifar10", "imagenet", "svhn"] = "cifar10", fill: int = 128) -> None:
        super().__init__(fill)
        check_choice("policy", policy, ("cifar10", "imagenet", "svhn"))
        self.policy = policy
        self._pairs = TorchvisionAutoAugment(AutoAugmentPolicy(policy)).policies
        # the pair; whether each operation is done, and its sign
        self.draws = 5

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Augments, see :class:`Augmentation`."""
        pairs = [self._pairs[number] for number in (uniform[:, 0] * len(self._pairs)).long().tolist()]
        for place in (0, 1):
            chosen = []
            for pair, (done, sign) in zip(pairs, uniform[:, 1 + 2 * place : 3 + 2 * place].tolist(), strict=True):
                name, probability, level = pair[place]
                # magnitudes are ten levels
                strength = 0.0 if level is None else _signed(name, level / 9, sign)
                chosen.append((name, strength) if done < probability else ("Identity", 0.0))
            x = self._done(x, chosen)
        return x
