import math

import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, SelfPacedLogPert


@pytest.mark.parametrize(("epochs", "tau_epochs"), [(3, None), (4, 2), (1, None)])
def test_the_threshold_grows_in_a_straight_line(epochs, tau_epochs):
    first, last, eta = 1.2, 1.8, 1000.0
    over = tau_epochs or epochs
    hard_by_epoch: dict[int, int] = {}

    def loss(logits, batch, epoch, _):
        x, y, _ = batch
        u = logits(x)
        tau = first if over == 1 else min(first + (last - first) * epoch / (over - 1), last)
        hard = cross_entropy(u, y) >= tau
        hard_by_epoch[epoch] = hard_by_epoch.get(epoch, 0) + int(hard.sum())
        v = eta * (onehot(y) - softmax(u.detach()))
        return cross_entropy(torch.where(hard[:, None], u + v, u), y).mean()

    module = make(SelfPacedLogPert, tau_first=first, tau_last=last, tau_epochs=tau_epochs, eta=eta)
    # the threshold is a number in single precision
    assert_same(train(module, epochs=epochs), replay(loss, epochs=epochs), tolerance=1e-6)
    assert hard_by_epoch[0] > 0


def test_hard_samples_lose_their_weight():
    module = make(SelfPacedLogPert, tau_first=0.01, tau_last=0.02)
    u = torch.tensor([[4.0, 0.0, 1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    train(module, epochs=1, limit_train_batches=1)
    (slope,) = torch.autograd.grad(module.loss({"logits": u}, Batch(u.detach(), torch.tensor([3]))), u)
    assert float(slope.abs().max()) < 1e-12


def test_defaults_train_at_first():
    module = make(SelfPacedLogPert)
    assert module.tau_first == pytest.approx(1.2 * math.log(CLASSES))
    assert module.tau_last == pytest.approx(2.4 * math.log(CLASSES))
    train(module)


def test_thresholds_above_all_losses_are_cross_entropy():
    assert_same(train(make(SelfPacedLogPert, tau_first=1e6)), train(make(CrossEntropy)))


def test_a_run_without_an_end():
    with pytest.raises(ValueError, match=r"no max_epochs to stretch the pace over. Set max_epochs or tau_epochs"):
        train(make(SelfPacedLogPert), epochs=-1, max_steps=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_first": 2.0, "tau_last": 1.0}, "tau_last=1.0 must be above tau_first=2.0"),
        ({"tau_first": -1.0}, "tau_first=-1"),
        ({"tau_first": 0.0, "tau_last": 1.0}, "tau_first=0"),
        ({"tau_epochs": 0}, "tau_epochs=0"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(SelfPacedLogPert, **options)


@pytest.mark.parametrize("fixed", ["tau", "threshold", "eps2"])
def test_what_the_pace_fixes_cannot_be_given(fixed):
    with pytest.raises(TypeError, match=fixed):
        make(SelfPacedLogPert, **{fixed: 1.0})
