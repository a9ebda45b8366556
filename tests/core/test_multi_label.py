"""Several labels a sample in the core: loss, labels of the wrong kind, metrics against scikit-learn, callbacks."""

import csv
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from testkit.training import CLASSES, NETS, Recipe, digits, fit, module_of, multi_hot, sgd, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.callbacks import Recorder, SuspectReport
from lightning_perturb.callbacks.predictions import PredictionWriter
from lightning_perturb.core import Batch, MultiLabelModule
from lightning_perturb.methods import BinaryCrossEntropy, CrossEntropy
from lightning_perturb.report import print_report


def problem(samples=80, classes=6, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(samples, classes, generator=generator) < torch.linspace(0.6, 0.05, classes)).float()
    logits = scale * torch.randn(samples, classes, generator=generator) + 2 * y - 1
    return logits, y


def module(classes=6, **options):
    return BinaryCrossEntropy(nn.Linear(3, classes), classes, **options)


def values(found, logits, y, batch=13):
    metrics = found.evaluation_metrics("test/")
    for start in range(0, len(y), batch):
        found.update_metrics(metrics, logits[start : start + batch], y[start : start + batch])
    return {name: float(value) for name, value in found.metric_values(metrics).items()}


@pytest.mark.parametrize("batch", [1, 13, 200])
def test_metrics_against_scikit_learn(batch):
    logits, y = problem()
    found = values(module(), logits, y, batch)
    pred = (logits > 0).long()
    assert found == pytest.approx(
        {
            "test/mAP": average_precision_score(y, logits, average="macro"),
            "test/macro_f1": f1_score(y, pred, average="macro", zero_division=0),
            "test/exact_match": accuracy_score(y, pred),
        },
        abs=1e-6,
    )


def test_head_medium_and_tail_by_the_training_counts():
    logits, y = problem()
    one = module()
    one.class_counts.copy_(torch.tensor([100, 19, 20, 500, 99, 3]))
    found = values(one, logits, y)
    by_class = average_precision_score(y, logits, average=None)
    for name, classes in (("head", [0, 3]), ("medium", [2, 4]), ("tail", [1, 5])):
        assert found[f"test/mAP_{name}"] == pytest.approx(by_class[classes].mean(), abs=1e-6)
    other = module(head_from=300, tail_below=3)
    other.class_counts.copy_(one.class_counts)
    found = {name for name in values(other, logits, y) if "mAP" in name}
    assert found == {"test/mAP", "test/mAP_head", "test/mAP_medium"}


def test_classes_without_a_positive_do_not_count():
    logits, y = problem()
    y[:, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = values(module(), logits, y)
    kept = [0, 1, 3, 4, 5]
    assert found["test/mAP"] == pytest.approx(average_precision_score(y[:, kept], logits[:, kept]), abs=1e-6)
    nothing = values(module(), logits[:5], torch.zeros(5, 6))
    assert "test/mAP" not in nothing
    assert nothing["test/macro_f1"] == 0


def test_the_order_of_confident_samples_is_seen():
    # sigmoid is 1 in single precision from 17 on
    logits = torch.tensor([[30.0], [29.0], [28.0], [27.0]]).repeat(1, 2)
    y = torch.tensor([[0.0], [0.0], [1.0], [1.0]]).repeat(1, 2)
    found = values(module(2), logits, y)
    assert found["test/mAP"] == pytest.approx(average_precision_score(y[:, 0], logits[:, 0]))
    assert found["test/mAP"] < 0.5


def test_the_loss_is_binary_cross_entropy_over_classes():
    logits, y = problem()
    one = module()
    expected = nn.functional.binary_cross_entropy_with_logits(logits, y)
    torch.testing.assert_close(one.loss({"logits": logits}, Batch(torch.empty(80, 3), y)), expected)
    torch.testing.assert_close(one.plain_loss(logits, y).mean(), expected)
    assert one.sample_loss(logits, y, Batch(torch.empty(80, 3), y)).shape == (80,)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float64])
def test_labels_of_any_type(dtype):
    x, y = digits()
    x, y = x[:32].float() / 255, multi_hot(y[:32]).to(dtype)
    loader = DataLoader(TensorDataset(x, y), 16)
    one = BinaryCrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(one, loader, loader)
    assert 0 < float(trainer.callback_metrics["val/mAP"]) <= 1


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (torch.zeros(8, dtype=torch.long), r"Labels of shape \(8,\) are class ids.*\[B, 10\].*CrossEntropy"),
        (torch.zeros(8, 7), r"Labels of shape \(8, 7\) do not fit.*num_classes=10"),
        (torch.full((8, 10), 0.5), r"A label is 0.5; a multi-label target holds one 0 or 1"),
        (torch.full((8, 10), float("nan")), r"A label is nan"),
    ],
)
def test_labels_that_are_not_multi_hot(labels, fault):
    one = BinaryCrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd)
    loader = DataLoader(TensorDataset(digits()[0][:8].float(), labels), 8)
    with pytest.raises(ValueError, match=fault):
        trainer_of(max_epochs=1).fit(one, loader)
    with pytest.raises(ValueError, match=fault.replace("Labels", "Evaluation labels").replace("A label", "An eval.*")):
        trainer_of().validate(one, loader, verbose=False)


def test_several_labels_where_one_class_is_expected():
    rows = multi_hot(digits()[1][:8])
    for labels in (rows, rows.bool(), rows.long()):
        loader = DataLoader(TensorDataset(digits()[0][:8].float(), labels), 8)
        one = CrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd)
        with pytest.raises(ValueError, match=r"A label of shape \(8, 10\) is multi-hot.*one class.*BinaryCrossEntropy"):
            trainer_of(max_epochs=1).fit(one, loader)
    soft = torch.rand(8, 10).softmax(1).bfloat16()
    loader = DataLoader(TensorDataset(digits()[0][:8].float(), soft), 8)
    trainer_of(max_epochs=1).fit(CrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd), loader)


def test_predictions_and_their_table(tmp_path):
    recipe = Recipe(BinaryCrossEntropy, trainer={"max_epochs": 2, "callbacks": []})
    writer = PredictionWriter(str(tmp_path / "predictions.csv"))
    one = module_of(recipe)
    data = tiny_data(test_samples=20, multi_label=True)
    (found,) = trainer_of(callbacks=[writer]).predict(one, datamodule=data)
    assert torch.equal(found["pred"], (found["prob"] > 0.5).long())
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(20))
    for row, pred, prob in zip(rows, found["pred"], found["prob"], strict=True):
        assert [int(c) for c in row["predictions"].split()] == pred.nonzero().flatten().tolist()
        assert [float(row[f"p_{c}"]) for c in range(CLASSES)] == pytest.approx(prob.tolist(), abs=1e-6)


def test_recorders_say_that_they_are_for_class_ids(tmp_path, capsys):
    recipe = Recipe(BinaryCrossEntropy, trainer={"max_epochs": 1, "default_root_dir": str(tmp_path)})
    with pytest.warns(UserWarning, match=r"Recorder records nothing.*\(16, 10\) are no class ids"):
        trainer = fit(recipe, callbacks=[Recorder(), report := SuspectReport()])
    assert report.path is None
    print_report(trainer, trainer.lightning_module, trainer.datamodule)
    printed = capsys.readouterr().out
    assert "mean average precision" in printed
    assert "all labels right" in printed


@pytest.mark.parametrize("callback", [ModelCheckpoint(monitor="val/acc"), EarlyStopping("val/balanced_acc")])
def test_a_callback_that_waits_for_accuracy_is_told(callback):
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} monitors 'val/.*Monitor val/mAP"):
        fit(Recipe(BinaryCrossEntropy), callbacks=[callback])


def test_the_best_map_can_be_kept(tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="val/mAP", mode="max")
    fit(Recipe(BinaryCrossEntropy, data={"val_size": 16}), callbacks=[keep])
    assert keep.best_model_score > 0


class Rarer(MultiLabelModule):
    """Doubles the loss of positives, cooperatively."""

    def entry_losses(self, logits, target, batch):
        return (1 + target) * super().entry_losses(logits, target, batch)


def test_a_method_of_ones_own():
    logits, y = problem()
    one = Rarer(nn.Linear(3, 6), 6)
    found = one.loss({"logits": logits}, Batch(torch.empty(80, 3), y))
    expected = nn.functional.binary_cross_entropy_with_logits(logits, y, weight=1 + y)
    torch.testing.assert_close(found, expected)


def evaluate(recipe: Recipe) -> dict:
    trainer = fit(recipe)
    (found,) = trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("samples", [51, 3, 1])
def test_two_ranks_evaluate_as_one_process(samples, ranks):
    recipe = Recipe(BinaryCrossEntropy, trainer={"max_epochs": 1, "precision": "64-true"})
    recipe = recipe.but(data={"test_samples": samples})
    one = evaluate(recipe)
    assert {"test/mAP", "test/macro_f1", "test/exact_match", "test/loss"} <= set(one)
    two = ranks(evaluate, recipe.but(data={"batch_size": 8}, trainer={"strategy": "ddp", "devices": 2}))
    assert two[0] == pytest.approx(one, abs=1e-6)
    assert two[1] == two[0]
