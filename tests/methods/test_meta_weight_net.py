"""Meta-Weight-Net."""

import numpy as np
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, FEATURES, adam, assert_hypergradient, batches, fit, mlp, sgd

from lightning_perturb.data import Arrays, Symmetric
from lightning_perturb.methods import MetaWeightNet


def make(**options):
    torch.manual_seed(0)
    return MetaWeightNet(mlp(), CLASSES, **{"optimizer": sgd, "meta_optimizer": adam, **options})


def test_its_hypergradient_is_exact():
    assert_hypergradient(make(hidden=7).double())


def test_the_loss_is_the_unnormalised_weighted_mean():
    module = make().double()
    train, _ = batches()
    logits = module.net(train.x)
    first, _, last = module.meta_net.layers
    by_sample = F.cross_entropy(logits, train.y, reduction="none")
    hidden = (by_sample.detach()[:, None] @ first.weight.T + first.bias).clamp(min=0)
    weights = 1 / (1 + torch.exp(-(hidden @ last.weight.T + last.bias)))[:, 0]
    expected = (weights * by_sample).sum() / len(train)
    found = module.loss({"logits": logits}, train)
    assert torch.allclose(found, expected)
    one, other = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (found, expected))
    assert torch.allclose(one, other)
    assert first.weight.shape == (100, 1)


def test_it_learns_to_trust_small_losses_alone():
    generator = np.random.default_rng(0)
    y = np.arange(400) % CLASSES
    x = generator.normal(size=(400, FEATURES)) + 4 * np.eye(CLASSES, FEATURES)[y]
    module = make(optimizer=lambda p: torch.optim.SGD(p, lr=0.5), meta_optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    noisy = Arrays(x, y, num_classes=CLASSES, label_noise=Symmetric(0.5), meta_size=40, batch_size=40)
    fit(module, noisy, max_epochs=15)
    low, high = module.meta_net(torch.tensor([[0.1], [4.0]], dtype=torch.float64)).sigmoid()[:, 0]
    assert low > 0.9
    assert high < 0.1
