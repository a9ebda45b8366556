"""Every method is evaluated alike: against scikit-learn and a calibration error written out here."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score, top_k_accuracy_score
from testkit.training import Recipe, fit, module_of, tiny_data, trainer_of
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core.evaluation import SampleMean, classification_metrics
from lightning_perturb.methods import CrossEntropy


def calibration_error(prob: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017: the mean of |accuracy - confidence| over equal bins of confidence, weighted by their samples."""
    confidence, hit = prob.max(1), prob.argmax(1) == y
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [
        abs(hit[which == b].mean() - confidence[which == b].mean()) * (which == b).sum()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps) / len(y))


def problem(classes: int, samples: int, seed: int, absent: int | None = None):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, samples)
    if absent is not None:
        y[y == absent] = (absent + 1) % classes
    logits = generator.normal(size=(samples, classes)) * 2
    logits[np.arange(samples), y] += 1.5
    prob = torch.from_numpy(logits).float().softmax(1)
    return prob, torch.from_numpy(y)


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize(("classes", "absent"), [(2, None), (3, 1), (10, None), (10, 4), (25, None)])
def test_against_scikit_learn(classes, absent, batch):
    prob, y = problem(classes, 100, seed=classes, absent=absent)
    metrics = classification_metrics(classes, "test/")
    for start in range(0, 100, batch):
        metrics.update(prob[start : start + batch], y[start : start + batch])
    found = {name: float(value) for name, value in metrics.compute().items() if value.ndim == 0}
    pred = prob.argmax(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "test/acc": accuracy_score(y, pred),
            "test/error": 1 - accuracy_score(y, pred),
            "test/balanced_acc": balanced_accuracy_score(y, pred),
            "test/macro_precision": precision_score(y, pred, average="macro", zero_division=0),
            "test/ece": calibration_error(prob.numpy(), y.numpy()),
        }
        if classes >= 20:
            expected["test/top5"] = top_k_accuracy_score(y, prob, k=5, labels=range(classes))
    assert found == pytest.approx(expected, abs=1e-6)
    if absent is not None:
        assert absent in pred, "the absent class must be predicted somewhere for this test to say anything"


def test_the_mean_loss():
    metric = SampleMean()
    metric.update(torch.tensor([1.0, 2.0]))
    metric.update(torch.tensor([6.0]))
    assert float(metric.compute()) == pytest.approx(3)
    metric.update(torch.tensor([float("nan")]))
    assert metric.compute().isnan()
    metric.reset()
    metric.update(torch.tensor([4.0], dtype=torch.bfloat16))
    assert float(metric.compute()) == 4


def test_a_run_logs_them_for_validation_and_test():
    data = tiny_data(test_samples=61, eval_batch_size=16, val_size=21, samples=121)
    trainer = fit(Recipe(CrossEntropy, trainer={"max_epochs": 1}), data=data)
    names = {"loss", "acc", "error", "balanced_acc", "macro_precision", "ece"}
    assert {f"val/{name}" for name in names} | {"train/loss"} == set(trainer.callback_metrics)
    module = trainer.lightning_module
    (found,) = trainer_of().test(module, datamodule=data, verbose=False)
    assert set(found) == {f"test/{name}" for name in names}
    batches = trainer_of().predict(module, datamodule=data)
    prob, y = torch.cat([b["prob"] for b in batches]), torch.from_numpy(data._test[1])
    assert found["test/acc"] == pytest.approx(accuracy_score(y, prob.argmax(1)))
    assert found["test/ece"] == pytest.approx(calibration_error(prob.numpy(), y.numpy()), abs=1e-6)
    assert found["test/loss"] == pytest.approx(float(-prob.log()[torch.arange(61), y].mean()), abs=1e-5)
    assert found["test/loss"] == trainer_of().test(module, datamodule=data, verbose=False)[0]["test/loss"], "not reset"


def test_validation_labels_outside_the_classes_are_told():
    module = module_of(Recipe(CrossEntropy))
    for wrong in (10, -1, -100):
        loader = DataLoader(TensorDataset(torch.rand(4, 64), torch.tensor([0, 1, 2, wrong])), 4)
        with pytest.raises(ValueError, match=rf"label is {wrong}, outside 0\.\.9"):
            trainer_of().validate(module, loader, verbose=False)


def test_half_precision_weights_are_refused():
    from lightning import Trainer
    from torch import nn

    from lightning_perturb.data import Digits
    from lightning_perturb.methods import CrossEntropy

    trainer = Trainer(accelerator="cpu", precision="bf16-true", logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"precision='bf16-true'.*bf16-mixed"):
        trainer.fit(CrossEntropy(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10), Digits())
