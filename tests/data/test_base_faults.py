"""What the data family refuses, and says so."""

import numpy as np
import pytest
import torch
from testkit.pixels import COUNT, X_TEST, Y_TEST, X, Y, labels_of, make, ready

from lightning_perturb.data import (
    Arrays,
    CropFlip,
    Exponential,
    PerturbationDataModule,
    Symmetric,
)


class Broken(Arrays):
    """Arrays whose labels or splits break a rule."""

    def __init__(self, labels=Y, val=None, **options):
        super().__init__(X, Y, X_TEST, Y_TEST, **options)
        self.broken, self.val = labels, val

    def read(self, split):
        if split == "val":
            return self.val
        return (super().read(split)[0], self.broken) if split == "train" else super().read(split)


def test_labels_outside_the_classes():
    for wrong, value in ((Y + 1, r"=3 is outside 0\.\.2"), (Y - 1, r"=-1 is outside 0\.\.2")):
        with pytest.raises(ValueError, match=value):
            Broken(wrong).setup("fit")
    with pytest.raises(ValueError, match=r"=7 is outside 0\.\.2"):
        Broken(val=(torch.from_numpy(X_TEST), np.full(9, 7))).setup("fit")


def test_a_validation_split_of_the_source_excludes_a_carved_one():
    own = torch.from_numpy(X_TEST), Y_TEST
    data = Broken(val=own, label_noise=Symmetric(1.0))
    data.setup("fit")
    assert labels_of(data.val_dataloader()).tolist() == Y_TEST.tolist()
    with pytest.raises(ValueError, match=r"val_size=0\.2 asks for a validation split, but Broken found one"):
        Broken(val=own, val_size=0.2).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"meta_size": 61}, r"meta_size=61 asks for 21 samples of class 0, which has only 20"),
        ({"meta_size": 60}, r"meta_size=60 .* no training sample left.* Set meta_size to at most 57"),
        ({"imbalance": Exponential(1000.0)}, r"Exponential leaves class \d empty"),
        ({"val_size": 58}, r"val_size: size=58 holds out 58 of 60 samples and leaves a class without a sample"),
        ({"val_size": 1.5}, r"val_size: size=1\.5 is neither a share below 1 nor a whole number"),
        ({"train_size": 2}, r"train_size=2 is .*leaves a class empty\. Keep 3 to 60 samples"),
        ({"train_size": 0.01}, r"train_size=0\.01 is .*Keep 3 to 60 samples"),
        ({"train_size": 61}, r"train_size=61 is .*Keep 3 to 60 samples"),
        ({"train_size": 30.5}, r"train_size=30\.5 is neither a share below 1 nor a count"),
    ],
)
def test_sizes_that_do_not_fit_the_data(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be"),
        ({"eval_batch_size": -3}, "eval_batch_size=-3 must be"),
        ({"val_size": -0.1}, r"val_size=-0\.1 must be"),
        ({"meta_size": -1}, "meta_size=-1 must be"),
        ({"train_size": 0}, "train_size=0 must be"),
        ({"val_labels": "true"}, "val_labels='true' is unknown. Choose one of: clean, given"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_drop_last_that_leaves_no_batch():
    with pytest.raises(ValueError, match=r"drop_last=True leaves no batch: 60 training samples, batch_size=64"):
        ready(batch_size=64, drop_last=True).train_dataloader()
    assert len(ready(batch_size=64).train_dataloader()) == 1
    assert len(list(ready(batch_size=16, drop_last=True).train_dataloader())) == 3


def test_augmentation_of_features():
    data = Arrays(X.reshape(COUNT, -1) / 255, Y, augment=CropFlip())
    data.setup("fit")
    with pytest.raises(ValueError, match=r"augment=CropFlip works on uint8 images .* torch.float32 of shape \(36,\)"):
        data.train_dataloader()


def test_what_was_not_read_yet_is_named():
    data = make()
    for use in (
        lambda: data.facts,
        lambda: data.noisy,
        lambda: data.noise_rate,
        lambda: data.transition_matrix,
        lambda: data.checksum,
        lambda: data.raw_inputs([0]),
        data.score_dataloader,
    ):
        with pytest.raises(RuntimeError, match=r"Arrays has not read its training data yet. Call setup\('fit'\)"):
            use()


def test_what_a_subclass_must_say():
    class Empty(PerturbationDataModule):
        pass

    with pytest.raises(NotImplementedError, match="Empty must say its num_classes"):
        Empty().num_classes
    with pytest.raises(NotImplementedError, match="Empty must read its arrays"):
        Empty().setup("fit")

    class TestOnly(Empty):
        def read(self, split):
            return None

    with pytest.raises(ValueError, match="TestOnly has no training split"):
        TestOnly().setup("fit")
