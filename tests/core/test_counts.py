"""Methods that need the number of training samples of each class."""

import numpy as np
import pytest
import torch
from testkit.meta import CLASSES, arrays, fit, mlp, sgd
from testkit.training import Saves

import lightning_perturb
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.methods import LogitAdjustment


class Counted(CountedModule):
    """Uses them or not."""

    uses = True

    @property
    def needs_class_counts(self):
        return self.uses


def make(**options):
    torch.manual_seed(0)
    return Counted(mlp(), CLASSES, optimizer=sgd, **options).double()


def no_third_class(data):
    """Thins one class out to nothing, as a user's own imbalance may."""
    setup = data.setup

    def after(stage=None):
        setup(stage)
        data.given_labels[data.given_labels == 2] = 1

    data.setup = after
    return data


def test_a_class_without_samples_is_named_before_training():
    with pytest.raises(ValueError, match=r"Counted needs training samples of every class.*none of the classes \[2\]"):
        fit(make(), no_third_class(arrays(label_noise=None)))


def test_a_method_that_leaves_them_out_trains_without():
    module = make()
    module.uses = False
    fit(module, no_third_class(arrays(label_noise=None)))


def test_given_ones_go_before_those_of_the_data():
    module = make(class_counts=[4, 3, 2, 1])
    fit(module)
    assert module.class_counts.tolist() == [4, 3, 2, 1]


def test_given_ones_go_before_those_of_the_checkpoint(tmp_path):
    saves = Saves(tmp_path, "epoch", save_on_train_epoch_end=True)
    fit(make(class_counts=[1, 2, 3, 4]), max_epochs=2, callbacks=[saves])
    module = make(class_counts=[4, 3, 2, 1])
    fit(module, max_epochs=2, ckpt_path=min(tmp_path.glob("*.ckpt")))
    assert module.class_counts.tolist() == [4, 3, 2, 1]


def test_those_of_numpy_are_plain(tmp_path):
    for number, counts in enumerate((list(np.array([4, 3, 2, 1])), np.array([4, 3, 2, 1]))):
        saves = Saves(tmp_path / str(number), "epoch", save_on_train_epoch_end=True)
        torch.manual_seed(0)
        module = LogitAdjustment(mlp(), CLASSES, optimizer=sgd, class_counts=counts).double()
        fit(module, callbacks=[saves])
        (path,) = (tmp_path / str(number)).glob("*.ckpt")
        assert lightning_perturb.load(path, net=mlp()).class_counts.tolist() == [4, 3, 2, 1]
