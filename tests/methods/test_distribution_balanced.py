"""R-BCE, NTR and their combinations against the distribution-balanced loss as its authors write it."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.training import NETS, Recipe, digits, fit, multi_hot, sgd, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core import Batch
from lightning_perturb.data import Arrays
from lightning_perturb.methods import (
    NTR,
    RBCE,
    RBCENTR,
    BinaryCrossEntropy,
    MultiLabelFocal,
    MultiLabelReSampling,
    MultiLabelReSamplingFocal,
    RBCEFocal,
    RBCEFocalNTR,
)

COUNTS = torch.tensor([40, 9, 3, 1])
TOTAL = 50


def problem(samples=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(samples, 4, generator=generator) < 0.4).double()
    return 3 * torch.randn(samples, 4, generator=generator, dtype=torch.float64), y


def ready(method, **options):
    module = method(nn.Linear(2, 4), 4, class_counts=COUNTS.tolist(), **options).double()
    module.class_counts.copy_(COUNTS)
    module.use_counts(module.class_counts)
    return module


def published(logits, y, *, weighted, focal, kappa=0.0, lam=1.0, mu=0.3):
    """Entry by entry, in plain numbers."""
    total = 0.0
    for u_row, y_row in zip(logits.tolist(), y.tolist(), strict=True):
        repeat = sum(label / n for label, n in zip(y_row, COUNTS.tolist(), strict=True))
        for u, label, n in zip(u_row, y_row, COUNTS.tolist(), strict=True):
            ratio = (1 / n) / repeat if repeat else math.inf
            weight = 0.1 + 1 / (1 + math.exp(-min(10 * (ratio - mu), 700))) if weighted else 1.0
            z = u - (kappa / lam) * math.log(TOTAL / n - 1) if kappa else u
            entry = math.log1p(math.exp(-z)) if label else math.log1p(math.exp(lam * z)) / lam
            p = 1 / (1 + math.exp(-z)) if label else 1 / (1 + math.exp(lam * z))
            total += weight * entry * (2 * (1 - p) ** 2 if focal else 1)
    return total / logits.numel()


@pytest.mark.parametrize(
    ("method", "options", "parts"),
    [
        (RBCE, {}, {"weighted": True, "focal": False}),
        (RBCE, {"weight_centre": 0.2}, {"weighted": True, "focal": False, "mu": 0.2}),
        (RBCEFocal, {}, {"weighted": True, "focal": True}),
        (NTR, {}, {"weighted": False, "focal": False, "kappa": 0.05, "lam": 5.0}),
        (NTR, {"tolerance": 2.0}, {"weighted": False, "focal": False, "kappa": 0.05, "lam": 2.0}),
        (RBCENTR, {}, {"weighted": True, "focal": False, "kappa": 0.05, "lam": 5.0}),
        (RBCEFocalNTR, {}, {"weighted": True, "focal": True, "kappa": 0.05, "lam": 5.0}),
        (MultiLabelFocal, {}, {"weighted": False, "focal": True}),
    ],
)
def test_against_the_published_loss(method, options, parts):
    if issubclass(method, NTR):
        options = {"train_samples": TOTAL, **options}
    module = method(nn.Linear(2, 4), 4, **options).double() if method is MultiLabelFocal else ready(method, **options)
    logits, y = problem()
    batch = Batch(torch.empty(30, 2), y)
    found = module.loss({"logits": logits}, batch)
    assert float(found) == pytest.approx(published(logits, y, **parts), rel=1e-9)
    assert torch.equal(module(torch.zeros(1, 2, dtype=torch.float64)), module.net(torch.zeros(1, 2).double()))


def test_parts_that_are_switched_off_are_binary_cross_entropy():
    logits, y = problem()
    batch = Batch(torch.empty(30, 2), y)
    plain = F.binary_cross_entropy_with_logits(logits, y)
    ntr = ready(NTR, train_samples=TOTAL, kappa=0.0, tolerance=1.0)
    focal = MultiLabelFocal(nn.Linear(2, 4), 4, gamma=0.0, focal_scale=1.0)
    for module in (ntr, focal):
        torch.testing.assert_close(module.loss({"logits": logits}, batch), plain)


def test_a_sample_without_labels_has_the_largest_weight():
    module = ready(RBCE)
    logits = problem()[0][:1]
    nothing = torch.zeros(1, 4, dtype=torch.float64)
    found = module.loss({"logits": logits}, Batch(torch.empty(1, 2), nothing))
    torch.testing.assert_close(found, 1.1 * F.softplus(logits).mean())


def test_a_run_takes_counts_and_size_from_the_data():
    module = fit(Recipe(RBCEFocalNTR, trainer={"max_epochs": 1}, data={"val_size": 16})).lightning_module
    data = module.trainer.datamodule
    counts = torch.from_numpy(data.class_counts)
    assert torch.equal(module.class_counts, counts)
    torch.testing.assert_close(module.bias, -(80 / counts - 1).log() * 0.05 / 5)
    assert "bias" not in module.state_dict(), "an argument that a resumed run changes would not count"


@pytest.mark.parametrize("method", [RBCE, NTR])
def test_counts_that_are_missing_are_asked_for(method):
    loader = DataLoader(TensorDataset(torch.rand(8, 64), torch.ones(8, 10)), 4)
    options = {"resample": False} if method is RBCE else {}
    with pytest.raises(ValueError, match=rf"{method.__name__} needs the number of training samples of each class"):
        trainer_of(max_epochs=1).fit(method(NETS["mlp"](), 10, optimizer=sgd, **options), loader)
    with pytest.raises(ValueError, match=r"class_counts=\[1, 2\] must be 10 numbers"):
        method(NETS["mlp"](), 10, class_counts=[1, 2])


def test_a_class_without_samples_or_without_negatives_is_told_before_training():
    with pytest.raises(ValueError, match=r"needs the number of training samples. Use .* train_samples"):
        ready(NTR)
    with pytest.raises(ValueError, match=r"counts reach total=40 for the classes \[0\]"):
        ready(NTR, train_samples=40)
    x, y = digits()
    rows = multi_hot(y)
    rows[:, [2, 5]] = 0
    with pytest.raises(ValueError, match=r"RBCE needs training samples of every class.*classes \[2, 5\]"):
        trainer_of(max_epochs=1).fit(RBCE(NETS["mlp"](), 10, optimizer=sgd), Arrays(x, rows))


def first_epoch(recipe):
    data = tiny_data(multi_label=True, noise=0.0)
    seen = torch.zeros(10)

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.add_(outputs["y"].sum(0))

    module = fit(recipe.but(trainer={"max_epochs": 1}), data=data, callbacks=[Look()]).lightning_module
    return seen, module.class_counts


@pytest.mark.parametrize("method", [RBCE, RBCEFocalNTR, MultiLabelReSampling, MultiLabelReSamplingFocal])
def test_batches_are_resampled_where_the_method_says_so(method):
    plain, counts = first_epoch(Recipe(BinaryCrossEntropy))
    assert torch.equal(plain, counts.float())
    resampled, _ = first_epoch(Recipe(method))
    assert not torch.equal(resampled, counts.float())
    if method is RBCE:
        assert torch.equal(first_epoch(Recipe(method, {"resample": False}))[0], counts.float())
        loader = DataLoader(TensorDataset(torch.rand(8, 64), torch.ones(8, 10)), 4)
        with pytest.raises(ValueError, match=r"RBCE trains on batches of balanced classes"):
            trainer_of(max_epochs=1).fit(RBCE(NETS["mlp"](), 10), loader)


def test_arguments_out_of_range():
    for method, options in (
        (RBCE, {"weight_offset": -1.0}),
        (RBCE, {"weight_steepness": 0.0}),
        (NTR, {"kappa": -0.1}),
        (NTR, {"tolerance": 0.0}),
        (NTR, {"train_samples": 0}),
        (MultiLabelFocal, {"gamma": -1.0}),
        (MultiLabelFocal, {"positive_weight": 2.0}),
        (MultiLabelFocal, {"focal_scale": 0.0}),
    ):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            method(nn.Linear(2, 4), 4, **options)
