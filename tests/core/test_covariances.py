"""Running class covariances as state, and the step that corrects them for one batch."""

import pytest
import torch
from testkit.covariances import Statistics
from testkit.meta import CLASSES, FEATURES, WithFeatures, arrays, batches, fit, sgd
from torch import nn

from lightning_perturb.core.covariances import CovarianceModule
from lightning_perturb.methods import ISDA, MetaSAug


def make(method=ISDA, **options):
    torch.manual_seed(0)
    return method(WithFeatures(), CLASSES, optimizer=sgd, **options).double()


class Keeps(ISDA):
    """Remembers the features of the batches that it was trained on."""

    def update_state(self, outputs, batch):
        super().update_state(outputs, batch)
        self.seen.append((self.phase, outputs["features"].detach().clone(), batch.y.clone()))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_they_are_those_of_all_features_since_the_warm_up(covariance):
    module = make(Keeps, warmup_epochs=1, covariance=covariance)
    module.seen = []
    fit(module, max_epochs=3)
    expected = Statistics(5)
    for phase, features, y in module.seen:
        if phase == "main":
            expected.add(features, y)
    assert sum(expected.counts) == 2 * 52
    assert module.feature_count.tolist() == expected.counts
    torch.testing.assert_close(module.feature_mean, expected.mean())
    full = expected.covariance()
    torch.testing.assert_close(
        module.feature_covariance, full if covariance == "full" else full.diagonal(dim1=1, dim2=2)
    )


def test_large_ones_are_kept_by_their_diagonal():
    def shape(classes, width, **options):
        with torch.device("meta"):
            net = nn.Linear(width, classes)
        return tuple(CovarianceModule(net, classes, **options).feature_covariance.shape)

    assert shape(100, 640) == (100, 640, 640)
    # 1000 classes at 366 features are the last below 512 MiB
    assert shape(1000, 367) == (1000, 367)
    assert shape(1000, 16, covariance="diagonal") == (1000, 16)
    assert shape(8142, 2048) == (8142, 2048)


def test_the_first_value_of_a_large_state_takes_no_memory():
    module = make()
    assert module._first_state["feature_covariance"].untyped_storage().nbytes() <= 8
    module.feature_covariance.fill_(1.0)
    module.reset_state()
    assert not module.feature_covariance.any()
    module.feature_covariance[0, 0, 0] = 1.0
    assert module.feature_covariance.sum() == 1, "the entries share one number"


def test_a_loss_changes_nothing_and_sees_its_own_batch():
    module = make(ramp="constant")
    train, _ = batches()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    outputs = module.outputs(module.net, train)
    first, second = (module.loss(outputs, train.copy()) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    alone = Statistics(5)
    alone.add(outputs["features"], train.y)
    torch.testing.assert_close(module.covariances(outputs, train), alone.covariance())


def test_the_ramp_needs_an_end():
    module = make(total_epochs=10)
    assert module.ramped(3.0) == 0.0
    assert make(ramp="constant").ramped(3.0) == 3.0
    with pytest.raises(ValueError, match=r"ramp='linear' of ISDA .*max_epochs=-1.*total_epochs"):
        fit(make(), max_epochs=-1, max_steps=3)
    fit(make(total_epochs=2), max_epochs=-1, max_steps=3)
    for options in ({"total_epochs": 0}, {"covariance": "half"}, {"ramp": "steep"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


# the correction for one batch -----------------------------------------------------------------------------------------


class Watches(MetaSAug):
    """Remembers which covariances the losses read."""

    def covariances(self, outputs, batch):
        found = super().covariances(outputs, batch)
        self.read.append(found.detach().clone())
        return found

    def update_state(self, outputs, batch):
        self.before.append(self.feature_covariance.clone())
        super().update_state(outputs, batch)


@pytest.mark.parametrize("every", [1, 3])
def test_a_correction_holds_for_one_batch(every):
    module = make(Watches, ramp="constant", meta_every=every)
    module.read, module.before = [], []
    trainer = fit(module)
    # nothing but covariances is learned: there is one optimizer
    assert len(trainer.optimizers) == 1
    read = iter(module.read)
    for number, statistics in enumerate(module.before):
        if number % every:
            assert torch.equal(next(read), statistics), "a correction outlived its batch"
            continue
        assert torch.equal(next(read), statistics), "the virtual step starts from the statistics"
        corrected = next(read)
        moved = (corrected - statistics).abs()
        assert moved.max() > 0
        torch.testing.assert_close(corrected, corrected.mT)
    assert next(read, None) is None
    assert module._corrected is None


def test_nothing_to_learn_is_named():
    with pytest.raises(ValueError, match="MetaSAug has nothing to learn"):
        fit(make(MetaSAug, sigma_lr=0.0))
    with pytest.raises(ValueError, match="sigma_lr=-1"):
        make(MetaSAug, sigma_lr=-1.0)


def test_a_narrow_network():
    # one feature, one sample of a class, classes that never come
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(FEATURES, 1), nn.Tanh(), nn.Linear(1, CLASSES))
    module = ISDA(net, CLASSES, optimizer=sgd).double()
    fit(module, arrays(batch_size=1), max_epochs=2)
    assert all(bool(value.isfinite().all()) for value in module.state_dict().values())
