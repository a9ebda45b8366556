"""RandAugment and AutoAugment against torchvision's own, one image at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from testkit.training import Recipe, different, fit, snapshot
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms.v2 import AutoAugmentPolicy
from torchvision.transforms.v2 import RandAugment as TorchvisionRandAugment

from lightning_perturb.cli import build
from lightning_perturb.core import random as keyed_random
from lightning_perturb.data import AugmentChain, AutoAugment, CropFlip, RandAugment
from lightning_perturb.methods import CrossEntropy


def images(count, channels=3, size=12, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    return torch.from_numpy(pixels)


def one(reference, image, name, magnitude):
    """Torchvision's own step on one image."""
    return reference._apply_image_or_video_transform(
        image, name, magnitude, InterpolationMode.NEAREST, {torch.Tensor: 128.0}
    )


def magnitude_of(reference, name, bins, level, size, negative):
    find, signed = reference._AUGMENTATION_SPACE[name]
    found = find(bins, size, size)
    if found is None:
        return 0.0
    if name == "Posterize":
        return float(found[level])
    # between the ends of its list, which is in single precision: that moves some pixels by one, or over a threshold
    first, last = round(float(found[0]), 6), round(float(found[-1]), 6)
    return (first + (last - first) * (level / (bins - 1))) * (-1 if signed and negative else 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0, 9, 17, 30])
def test_every_operation_of_rand_augment(level, channels):
    reference = TorchvisionRandAugment()
    names = list(reference._AUGMENTATION_SPACE)
    x = images(2 * len(names), channels)
    before = x.clone()
    place = torch.arange(len(names)).repeat(2)
    uniform = torch.stack([(place + 0.5) / len(names), torch.tensor([0.2, 0.8]).repeat_interleave(len(names))], 1)
    found = RandAugment(operations=1, magnitude=level)(x, uniform)
    for image, out, number, draw in zip(x, found, place.tolist(), uniform[:, 1].tolist(), strict=True):
        magnitude = magnitude_of(reference, names[number], 31, level, 12, draw < 0.5)
        assert torch.equal(out, one(reference, image, names[number], magnitude)), (names[number], draw)
    assert torch.equal(x, before)


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_every_pair_of_auto_augment(policy):
    reference = TorchvisionAutoAugment(AutoAugmentPolicy(policy))
    pairs = reference._get_policies(AutoAugmentPolicy(policy))
    x = images(4 * len(pairs))
    place = torch.arange(len(pairs)).repeat(4)
    draws = torch.rand(len(x), 4, generator=torch.Generator().manual_seed(0))
    found = AutoAugment(policy)(x, torch.cat([(place[:, None] + 0.5) / len(pairs), draws], 1))
    for image, out, number, row in zip(x, found, place.tolist(), draws.tolist(), strict=True):
        expected = image
        for (name, probability, level), (done, sign) in zip(pairs[number], (row[:2], row[2:]), strict=True):
            if done < probability:
                magnitude = magnitude_of(reference, name, 10, level, 12, sign < 0.5)
                expected = one(reference, expected, name, magnitude)
        assert torch.equal(out, expected), pairs[number]


def test_operations_are_drawn_alike_often():
    # at magnitude 0 five operations change a picture of noise, whatever they draw
    x = images(1).expand(4000, -1, -1, -1)
    uniform = keyed_random.uniform(0, "test", 0, torch.arange(4000), 2)
    out = RandAugment(operations=1, magnitude=0)(x, uniform)
    changed = (out != x).flatten(1).any(1).float().mean()
    names = list(TorchvisionRandAugment()._AUGMENTATION_SPACE)
    reference = TorchvisionRandAugment()
    expected = np.mean(
        [bool((one(reference, x[0], n, magnitude_of(reference, n, 31, 0, 12, False)) != x[0]).any()) for n in names]
    )
    assert abs(float(changed) - expected) < 0.03


def test_an_image_does_not_depend_on_its_batch():
    x, uniform = images(9), torch.rand(9, 4, generator=torch.Generator().manual_seed(3))
    augment = RandAugment(magnitude=15)
    whole = augment(x, uniform)
    for row in range(9):
        assert torch.equal(augment(x[row : row + 1], uniform[row : row + 1])[0], whole[row])
    assert augment(x[:0], uniform[:0]).shape == (0, 3, 12, 12)


def test_a_chain_gives_each_step_its_own_draws():
    x, uniform = images(6), torch.rand(6, 7, generator=torch.Generator().manual_seed(4))
    crop, rand = CropFlip(2), RandAugment()
    chain = AugmentChain([crop, rand])
    assert chain.draws == 7
    assert torch.equal(chain(x, uniform), rand(crop(x, uniform[:, :3]), uniform[:, 3:]))
    with pytest.raises(ValueError, match=r"steps=\[\] is empty"):
        AugmentChain([])


def test_workers_draw_as_one_process_does():
    chain = AugmentChain([CropFlip(1, flip=False), RandAugment(1, 20)])
    recipe = Recipe(CrossEntropy, data={"samples": 48, "augment": chain}, trainer={"max_epochs": 1})
    one, two = (snapshot(fit(recipe.but(data={"num_workers": number}))) for number in (0, 1))
    assert different(one, two) == []
    plain = snapshot(fit(recipe.but(data={"augment": False})))
    assert "module/net.classifier.weight" in different(one, plain)


def test_it_is_named_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.yaml"
    path.write_text(
        "data: {init_args: {augment: {class_path: lightning_perturb.data.AugmentChain, init_args: {steps: ["
        "{class_path: lightning_perturb.data.CropFlip}, {class_path: lightning_perturb.data.AutoAugment}]}}}}"
    )
    digits = Path(__file__).parents[2] / "configs/data/digits.yaml"
    cli = build(["-c", str(digits), "-c", str(path), "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert [type(step) for step in cli.datamodule.augment.steps] == [CropFlip, AutoAugment]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(operations=0), "operations=0"),
        (lambda: RandAugment(magnitude=31), "magnitude=31"),
        (lambda: RandAugment(fill=300), "fill=300"),
        (lambda: AutoAugment("cifar100"), "policy='cifar100'"),
        (lambda: RandAugment()(torch.zeros(2, 5, 8, 8, dtype=torch.uint8), torch.zeros(2, 4)), r"1 or 3 channels"),
        (lambda: AutoAugment()(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5)), r"not torch.float32"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
