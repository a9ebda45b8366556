"""MetaSAug."""

import copy

import higher
import pytest
import torch
import torch.nn.functional as F
from testkit.covariances import Statistics, quadratic
from testkit.meta import CLASSES, WithFeatures, arrays, batches, fit, sgd

from lightning_perturb.core.distributed import world_size
from lightning_perturb.data import Exponential
from lightning_perturb.methods import MetaSAug

COUNTS = [8, 4, 3, 1]


def make(norm=False, **options):
    torch.manual_seed(0)
    return MetaSAug(WithFeatures(norm=norm), CLASSES, **{"optimizer": sgd, "beta": 0.9, **options}).double()


def tail(**options):
    # an even number of samples: an odd one would come with a repetition on two ranks
    return arrays(**{"label_noise": None, "imbalance": Exponential(3.0), **options})


def by_hand(logits, weight, y, sigma, counts, lam, margin=0.5, beta=0.9):
    """The loss as it is published, term by term."""
    counts = torch.as_tensor(counts).double()
    margins = counts**-0.25
    margins = margin * margins / margins.max()
    u = logits + lam * quadratic(weight, sigma, y) - F.one_hot(y, CLASSES) * margins
    classes = (1 - beta) / (1 - beta**counts)
    # PyTorch's weighted cross-entropy is normalised by the sum of the weights of the batch
    return F.cross_entropy(u, y, weight=classes * CLASSES / classes.sum())


def covariance_gradient(net, train, meta, sigma, counts, lam, lr, **options):
    """dM/dΣ by `higher` alone."""
    sigma = sigma.clone().requires_grad_()
    net = copy.deepcopy(net)
    place = [name for name, _ in net.named_parameters()].index("head.weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (patched, differentiable):
        logits, _ = patched(train.x)
        weight = list(patched.parameters())[place]
        differentiable.step(by_hand(logits, weight, train.y, sigma, counts, lam, **options))
        return torch.autograd.grad(F.cross_entropy(patched(meta.x)[0], meta.y), sigma)[0]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("engine", ["forward", "higher"])
def test_its_hypergradient_is_exact(norm, engine):
    module = make(norm, engine=engine, ramp="constant", lam=0.7)
    module.class_counts.copy_(torch.tensor(COUNTS))
    root = torch.randn(CLASSES, 5, 5, dtype=torch.float64)
    module.feature_covariance.copy_(root @ root.mT)
    train, meta = batches()
    (found,) = module.hypergradient(train, meta, 0.6).gradients
    expected = covariance_gradient(module.net, train, meta, module.feature_covariance, COUNTS, 0.7, 0.6)
    assert expected.norm() > 0
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    # classes that the batch does not hold have no part in its loss
    absent = [c for c in range(CLASSES) if c not in train.y.tolist()]
    assert not found[absent].any()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("norm", [False, True])
def test_training_is_that_of_a_loop_by_hand(norm, covariance):
    seen = []

    class Peek(MetaSAug):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch["train"], batch["meta"]))
            return super().training_step(batch, batch_idx)

    module = make(norm, lam=0.8, sigma_lr=0.3, warmup_epochs=1, covariance=covariance)
    module.__class__ = Peek
    net = copy.deepcopy(module.net)
    data = tail()
    fit(module, data, max_epochs=3)
    counts, full = data.class_counts, covariance == "full"

    optimizer, statistics = sgd(net.parameters()), Statistics(5)
    for epoch, train, meta in seen:
        logits, features = net(train.x)
        if epoch < 1:
            loss = F.cross_entropy(logits, train.y)
        else:
            lam = 0.8 * epoch / 3
            sigma = statistics.covariance()
            sigma = sigma if full else sigma.diagonal(dim1=1, dim2=2)
            gradient = covariance_gradient(net, train, meta, sigma, counts, lam, 0.2)
            assert gradient.any()
            loss = by_hand(logits, net.head.weight, train.y, sigma - 0.3 * gradient, counts, lam)
            statistics.add(features, train.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-9, atol=1e-11)
    assert module.feature_count.tolist() == statistics.counts


def test_margin_and_weights_can_be_left_out():
    train, _ = batches()
    module = make(margin=0.0, beta=0.0, ramp="constant", lam=0.0)
    outputs = module.outputs(module.net, train)
    torch.testing.assert_close(module.loss(outputs, train), F.cross_entropy(outputs["logits"], train.y))
    assert not module.needs_class_counts
    assert make(beta=0.0).needs_class_counts
    for options in ({"margin": -0.1}, {"beta": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


def on_ranks(size, norm):
    module = make(norm, warmup_epochs=1, sigma_lr=0.3)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    fit(module, tail(batch_size=8 // size, meta_batch_size=8 // size), max_epochs=3, **options)
    assert world_size() == size
    return module.state_dict()


def test_two_ranks_equal_one_process(ranks):
    one = on_ranks(1, False)
    first, second = ranks(on_ranks, 2, False)
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-10, atol=1e-12), name


def test_with_batch_norm_ranks_agree_in_everything(ranks):
    first, second = ranks(on_ranks, 2, True)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
