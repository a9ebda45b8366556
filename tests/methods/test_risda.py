"""RISDA."""

import copy

import pytest
import torch
import torch.nn.functional as F
from testkit.covariances import Statistics, quadratic
from testkit.meta import CLASSES, FEATURES, WithFeatures, arrays, fit, sgd
from torch import nn

from lightning_perturb.methods import ISDA, RISDA, ClassBalanced


def make(net=None, **options):
    torch.manual_seed(0)
    return RISDA(net or WithFeatures(), CLASSES, **{"optimizer": sgd, **options}).double()


class Served:
    """What is written down of a training: every batch, and the training set."""

    def data(self):
        found = arrays(meta_size=0)
        found.setup("fit")
        self.batches = [(b.x.double(), b.y) for b in found.score_dataloader()]
        self.counts = torch.from_numpy(found.class_counts)
        return found


def by_hand(net, seen, served, epochs, warmup, transfer, alpha=0.6, lam=0.9, tail=(2, 3)):
    """The loop of the published code, one class and sample at a time."""
    optimizer, sigma, mean, count = sgd(net.parameters()), torch.zeros(CLASSES, 5, 5).double(), None, None
    weights = (1 - 0.9999) / (1 - 0.9999 ** served.counts.double())
    statistics, rates, shift = Statistics(5), None, None
    mean, count = torch.zeros(CLASSES, 5).double(), torch.zeros(CLASSES).double()
    for epoch, x, y in seen:
        if epoch == warmup and rates is None:
            rates, features = torch.zeros(CLASSES, CLASSES).double(), [[] for _ in range(CLASSES)]
            with torch.no_grad():
                for several, labels in served.batches:
                    for logits, h, label in zip(*net(several), labels.tolist(), strict=True):
                        rates[label, int(logits.argmax())] += 1
                        features[label].append(h)
            rates /= rates.sum(1, keepdim=True)
            means = torch.stack([torch.stack(own).mean(0) for own in features])
            shift = rates.float().double() @ means - means
        logits, h = net(x)
        if epoch < warmup:
            loss = F.cross_entropy(logits, y)
        else:
            if transfer == "fresh":
                statistics.add(h, y)
                found = statistics.covariance()
            else:
                found = sigma.clone()
                for c in range(CLASSES):
                    own = h[y == c].detach()
                    if not len(own):
                        continue
                    share, centre = len(own) / (len(own) + count[c]), own.mean(0)
                    between = torch.outer(mean[c] - centre, mean[c] - centre)
                    spread = (own - centre).T @ (own - centre) / len(own)
                    found[c] = (1 - share) * sigma[c] + share * spread + share * (1 - share) * between
                    mean[c] = (1 - share) * mean[c] + share * centre
                    count[c] += len(own)
            mixed = found.clone()
            for k in tail:
                mixed[k] = sum(rates[k, j].float().double() * found[j] for j in range(CLASSES))
            sigma = mixed
            w = net.head.weight
            term = torch.stack([torch.stack([(w[j] - w[k]) @ shift[k] for j in range(CLASSES)]) for k in y.tolist()])
            done = epoch / epochs
            moved = logits + lam * done * quadratic(w, mixed, y) + alpha * done * term
            loss = F.cross_entropy(moved, y, weight=weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sigma


@pytest.mark.parametrize("transfer", ["stored", "fresh"])
def test_training_is_that_of_a_loop_by_hand(transfer):
    module, served, seen = make(alpha=0.6, lam=0.9, head=0.5, warmup_epochs=1, transfer=transfer), Served(), []
    net = copy.deepcopy(module.net)

    class Peek(RISDA):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch.x, batch.y))
            return super().training_step(batch, batch_idx)

    module.__class__ = Peek
    data = served.data()
    # the classes' numbers decide which are tail
    order = torch.argsort(served.counts, descending=True, stable=True)
    fit(module, data, max_epochs=3)
    sigma = by_hand(net, seen, served, 3, 1, transfer, tail=order[2:].tolist())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-6, atol=1e-8)
    if transfer == "stored":
        torch.testing.assert_close(module.feature_covariance, sigma, rtol=1e-6, atol=1e-8)


def test_without_reasoning_it_is_class_balanced_isda():
    # no tail, no mean term
    module, served = make(alpha=0.0, head=CLASSES, lam=0.5), Served()

    class Balanced(ISDA, ClassBalanced):
        """Both, without a constructor."""

    torch.manual_seed(0)
    other = Balanced(WithFeatures(), CLASSES, optimizer=sgd, lam=0.5, normalise="batch").double()
    fit(module, served.data(), max_epochs=2)
    fit(other, served.data(), max_epochs=2)
    for name, value in other.net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-12, atol=1e-14)


def test_the_pass_over_the_training_set_leaves_the_network_as_it_is():
    class Watched(RISDA):
        def start_epoch(self):
            before = {k: v.clone() for k, v in self.net.state_dict().items()}
            modes, state = [m.training for m in self.net.modules()], torch.get_rng_state()
            super().start_epoch()
            assert all(torch.equal(v, before[k]) for k, v in self.net.state_dict().items())
            assert [m.training for m in self.net.modules()] == modes
            assert torch.equal(torch.get_rng_state(), state)
            torch.testing.assert_close(self.confusion.sum(1), torch.ones_like(self.confusion[0]))

    net = nn.Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, CLASSES))
    module = Watched(net, CLASSES, optimizer=sgd, warmup_epochs=1).double()
    fit(module, arrays(meta_size=0), max_epochs=2)
    assert bool(module.reasoned)
    assert module.confusion.shape == (CLASSES, CLASSES)
    assert module.mean_shift.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "alpha=-1"),
        ({"head": 7}, "head=7"),
        ({"transfer": "both"}, "transfer='both'"),
        ({"lam": -0.1}, "lam=-0.1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
