"""De-confound-TDE."""

import copy

import pytest
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, WithFeatures, arrays, fit, sgd
from torch import nn

from lightning_perturb.methods import DeconfoundTDE


def make(net=None, **options):
    torch.manual_seed(0)
    return DeconfoundTDE(net or WithFeatures(6), CLASSES, **{"optimizer": sgd, **options}).double()


def normalised(h, w, drift=None, alpha=0.0, heads=2, scale=16.0, gamma=1 / 32):
    """Part by part."""
    found = 0
    for x, row, c in zip(
        h.chunk(heads, 1), w.chunk(heads, 1), (w[0] if drift is None else drift).chunk(heads), strict=True
    ):
        x, c = x / x.norm(dim=1, keepdim=True), c / c.norm()
        x = x - alpha * (x @ c)[:, None] * c
        found = found + scale / heads * x @ (row / (row.norm(dim=1, keepdim=True) + gamma)).T
    return found


@pytest.mark.parametrize("alpha", [3.0, None])
def test_training_is_that_of_a_loop_by_hand(alpha):
    module, seen = make(warmup_epochs=1, average_momentum=0.7, scale=4.0, alpha=alpha), []
    net = copy.deepcopy(module.net)

    class Peek(DeconfoundTDE):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch.x, batch.y))
            return super().training_step(batch, batch_idx)

    module.__class__ = Peek
    fit(module, arrays(meta_size=0), max_epochs=3)
    optimizer, drift, cosine, weight = sgd(net.parameters()), torch.zeros(6).double(), 0.0, 0.0
    for epoch, x, y in seen:
        logits, h = net(x)
        if epoch:
            logits = normalised(h, net.head.weight, scale=4.0)
            drift = 0.7 * drift + h.detach().mean(0)
            pairs = zip(h.detach().chunk(2, 1), drift.chunk(2), strict=True)
            cosine = 0.7 * cosine + torch.stack([torch.cosine_similarity(a, b[None]) for a, b in pairs]).mean()
            weight = 0.7 * weight + 1
        optimizer.zero_grad()
        # a bias without a part in the loss decays all the same
        (F.cross_entropy(logits, y) + 0 * net.head.bias.sum()).backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(module.feature_drift, drift, rtol=1e-7, atol=1e-9)

    x = seen[0][1]
    with torch.no_grad():
        h, w = net(x)[1], net.head.weight
        found = module.eval().predict_step((x,), 0)["prob"].double()
        strength = alpha or 1 / max(cosine / weight, 0.1)
        expected = normalised(h, w, drift, strength, scale=4.0)
        torch.testing.assert_close(found, expected.softmax(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(module(x), normalised(h, w, scale=4.0))


def test_warm_up_is_scored_as_it_is_trained():
    module, seen = make(warmup_epochs=2), []

    class Peek(DeconfoundTDE):
        def evaluation_logits(self, x):
            found = super().evaluation_logits(x)
            seen.append(torch.equal(found, self.net(x)[0]))
            return found

    module.__class__ = Peek
    fit(module, arrays(meta_size=0, val_size=8), max_epochs=3)
    assert seen == [True, True, False]


def test_other_alphas_need_no_other_training():
    one, other = make(alpha=0.0), make(alpha=2.0)
    fit(one, arrays(meta_size=0), max_epochs=2)
    fit(other, arrays(meta_size=0), max_epochs=2)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_bad_arguments():
    for options, message in (
        ({"heads": 4}, "heads=4 does not divide the 6 features"),
        ({"alpha": -1.0}, "alpha=-1"),
        ({"scale": 0.0}, "scale=0"),
        ({"average_momentum": 1.0}, "average_momentum=1"),
        ({"net": nn.Flatten()}, "has no nn.Linear"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)
