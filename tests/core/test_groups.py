"""Head, medium and tail: groups by true training counts, the numbers against scikit-learn, the same on two ranks."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from sklearn.metrics import average_precision_score, recall_score
from testkit.training import CLASSES, NETS, Recipe, digits, fit, multi_hot, resume, sgd, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_perturb import load
from lightning_perturb.core import DataFacts, PerturbationModule
from lightning_perturb.core.groups import ClassGroups, known_means
from lightning_perturb.data import Exponential, MultiLabelSymmetric, Symmetric, Wrap
from lightning_perturb.methods import BinaryCrossEntropy, CrossEntropy, LogitAdjustment

THRESHOLDS = {"head_from": 30, "tail_below": 10}
TAIL = {
    "samples": 1500,
    "noise": 0.4,
    "imbalance": Exponential(50.0),
    "batch_size": 64,
    "test_samples": 101,
    "val_size": 0.1,
}
ONE_EPOCH = {"max_epochs": 1}


def test_members_by_published_thresholds():
    counts = torch.tensor([101, 100, 20, 19, 0])
    members = {name: mask.tolist() for name, mask in ClassGroups(101, 20).members(counts).items()}
    assert members == {
        "head": [True, False, False, False, False],
        "medium": [False, True, True, False, False],
        "tail": [False, False, False, True, True],
    }
    assert ClassGroups(100, 20).members(counts)["head"].tolist() == [True, True, False, False, False]
    for module, head_from in ((CrossEntropy, 101), (BinaryCrossEntropy, 100)):
        assert module(nn.Linear(2, 5), 5).groups == ClassGroups(head_from, 20)
        assert module(nn.Linear(2, 5), 5, **THRESHOLDS).groups == ClassGroups(30, 10)


@pytest.mark.parametrize("counts", [[0, 0, 0], [500, 499, 101], [19, 0, 3], [100, 20, 50]])
def test_one_group_is_none(counts):
    assert ClassGroups(101, 20).members(torch.tensor(counts)) == {}


def test_equal_thresholds_leave_no_medium():
    members = ClassGroups(50, 50).members(torch.tensor([50, 49]))
    assert [mask.tolist() for mask in members.values()] == [[True, False], [False, False], [False, True]]
    assert set(known_means(torch.tensor([0.5, 0.25]), members)) == {"head", "tail"}


def test_faults_of_thresholds():
    for module in (CrossEntropy, BinaryCrossEntropy):
        with pytest.raises(ValueError, match="head_from=5 is less than tail_below=20"):
            module(nn.Linear(2, 5), 5, head_from=5)
        with pytest.raises(ValueError, match="head_from=nan is no number of samples"):
            module(nn.Linear(2, 5), 5, head_from=float("nan"))
        with pytest.raises(ValueError, match="tail_below=-1"):
            module(nn.Linear(2, 5), 5, tail_below=-1)


def test_unknown_classes_and_groups_without_known_ones_are_left_out():
    values = torch.tensor([0.5, torch.nan, 0.25, torch.nan])
    groups = {"a": [True, True, True, False], "b": [False, True, False, True], "c": [False] * 4}
    found = known_means(values, {name: torch.tensor(mask) for name, mask in groups.items()})
    assert {name: float(value) for name, value in found.items()} == {"a": 0.375}


@pytest.mark.parametrize("batch", [1, 13, 200])
def test_accuracy_of_groups_against_scikit_learn(batch):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 6, 150)
    y[y == 4] = 0
    logits = torch.from_numpy(generator.normal(size=(150, 6)) + 1.5 * np.eye(6)[y]).float()
    module = CrossEntropy(nn.Linear(3, 6), 6)
    module.true_counts.copy_(torch.tensor([300, 101, 100, 20, 19, 19]))
    metrics = module.evaluation_metrics("test/")
    for start in range(0, 150, batch):
        module.update_metrics(metrics, logits[start : start + batch], torch.from_numpy(y[start : start + batch]))
    found = {name: float(value) for name, value in module.metric_values(metrics).items()}
    recall = recall_score(y, logits.argmax(1), average=None, labels=range(6), zero_division=np.nan)
    assert np.isnan(recall[4])
    # class 4 has no test sample, and leaves its group
    groups = {"head": [0, 1], "medium": [2, 3], "tail": [5]}
    for name, classes in groups.items():
        assert found[f"test/acc_{name}"] == pytest.approx(recall[classes].mean(), abs=1e-6)
    assert found["test/balanced_acc"] == pytest.approx(np.nanmean(recall), abs=1e-6)
    assert found["test/error"] == pytest.approx((logits.argmax(1).numpy() != y).mean(), abs=1e-6)
    assert "test/recall" not in found


def logged(trainer, stage="val"):
    return {name.removeprefix(f"{stage}/") for name in trainer.callback_metrics if name.startswith(f"{stage}/acc_")}


def test_balanced_data_log_none():
    trainer = fit(Recipe(CrossEntropy, {"head_from": 50}, trainer=ONE_EPOCH, data={"val_size": 16}))
    assert logged(trainer) == set()
    assert 0 <= trainer.callback_metrics["val/error"] <= 1
    (found,) = trainer.test(trainer.lightning_module, tiny_data(), verbose=False)
    assert found["test/error"] == pytest.approx(1 - found["test/acc"], abs=1e-6)
    assert not any("acc_" in name.replace("balanced_acc", "") for name in found)


def expected_groups(counts):
    return {
        "head": [c for c, n in enumerate(counts) if n >= 30],
        "medium": [c for c, n in enumerate(counts) if 10 <= n < 30],
        "tail": [c for c, n in enumerate(counts) if n < 10],
    }


def test_groups_are_those_of_true_labels():
    trainer = fit(Recipe(CrossEntropy, THRESHOLDS, trainer=ONE_EPOCH, data=TAIL))
    module, data = trainer.lightning_module, trainer.datamodule
    true = [int((data.true_labels[data.train_index] == c).sum()) for c in range(CLASSES)]
    assert data.true_counts.tolist() == true == data.facts.true_counts.tolist() == module.true_counts.tolist()
    groups = expected_groups(true)
    assert all(groups.values())
    # the noise gives each rare class many labels
    assert expected_groups(data.class_counts)["tail"] == []
    assert module.class_counts.tolist() == data.class_counts.tolist() == data.facts.class_counts.tolist()
    assert logged(trainer) == {"acc_head", "acc_medium", "acc_tail"}

    (found,) = trainer.test(module, data, verbose=False)
    batches = trainer_of().predict(module, datamodule=data)
    pred, y = torch.cat([batch["pred"] for batch in batches]), data._test[1]
    recall = recall_score(y, pred, average=None, labels=range(CLASSES))
    for name, classes in groups.items():
        assert found[f"test/acc_{name}"] == pytest.approx(recall[classes].mean(), abs=1e-6)


def test_a_checkpoint_knows_the_groups(tmp_path):
    trainer = fit(Recipe(CrossEntropy, THRESHOLDS, trainer=ONE_EPOCH, data=TAIL))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    expected = trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)
    again = load(tmp_path / "last.ckpt", net=NETS["mlp"]())
    # the test split alone is read
    assert trainer_of().test(again, tiny_data(**TAIL), verbose=False) == expected
    other = load(tmp_path / "last.ckpt", net=NETS["mlp"](), head_from=10_000, tail_below=10_000)
    (ungrouped,) = trainer_of().test(other, tiny_data(**TAIL), verbose=False)
    assert set(expected[0]) - set(ungrouped) == {"test/acc_head", "test/acc_medium", "test/acc_tail"}


def test_a_checkpoint_from_before_true_counts_were_kept(tmp_path):
    recipe = Recipe(CrossEntropy, THRESHOLDS, trainer=ONE_EPOCH, data={**TAIL, "noise": 0.4})
    trainer, path = fit(recipe), tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    true = checkpoint["state_dict"].pop("true_counts")
    torch.save(checkpoint, path)
    again = load(path, net=NETS["mlp"]())
    assert not again.true_counts.any()
    assert set(again.class_groups("acc")) == {"acc_head", "acc_medium", "acc_tail"}, "given labels are known"
    resumed = resume(recipe.but(trainer={"max_epochs": 2}), path).lightning_module
    assert torch.equal(resumed.true_counts, true), "the data tells them"


class Plain(LightningDataModule):
    """Another project's data: class 0 has 170 samples, class 1 has 24, all others 5."""

    def __init__(self, rows=False):
        super().__init__()
        x, y = digits()
        keep = torch.cat([(y == c).nonzero().flatten()[: {0: 170, 1: 24}.get(c, 5)] for c in range(CLASSES)])
        self.x, self.y = x[keep].float() / 255, y[keep]
        self.labels = nn.functional.one_hot(self.y, CLASSES).float() if rows else self.y

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.labels), 16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.labels), 16)


@pytest.mark.parametrize(
    ("method", "noise", "name"),
    [(CrossEntropy, Symmetric(0.8), "acc"), (BinaryCrossEntropy, MultiLabelSymmetric(0.3), "mAP")],
)
def test_groups_are_those_of_true_labels_through_wrap(method, noise, name):
    rows = method.multi_label
    module = method(NETS["mlp"](), CLASSES, optimizer=sgd, **THRESHOLDS)
    data = Wrap(Plain(rows), label_noise=noise, num_classes=CLASSES)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert module.true_counts.tolist() == [170, 24] + [5] * 8
    assert min(module.class_counts[2:]) >= 10, "the given labels would have no tail"
    members = module.class_groups(name)
    assert [mask.nonzero().flatten().tolist() for mask in members.values()] == [[0], [1], [*range(2, 10)]]
    # the wrapped validation labels are clean
    logits = trainer_logits(module, data)
    if rows:
        by_class = average_precision_score(data.labels, logits, average=None)
    else:
        by_class = recall_score(data.y, logits.argmax(1), average=None, labels=range(CLASSES))
    for group, mask in members.items():
        assert float(trainer.callback_metrics[f"val/{group}"]) == pytest.approx(by_class[mask].mean(), abs=1e-5)


def trainer_logits(module: PerturbationModule, data) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(data.x)


def test_multi_label_groups_are_those_of_true_labels():
    _, y = digits()
    data = tiny_data(samples=300, multi_label=True, noise=0.8, val_size=60)
    trainer = fit(Recipe(BinaryCrossEntropy, {"head_from": 40, "tail_below": 22}, trainer=ONE_EPOCH), data=data)
    rows = multi_hot(y[:300])[data.train_index].sum(0).long()
    module = trainer.lightning_module
    assert torch.equal(module.true_counts, rows)
    assert not torch.equal(module.class_counts, rows)
    heads = module.class_groups("mAP")["mAP_head"].tolist()
    assert heads == [bool(n >= 40) for n in rows]
    assert heads != [bool(n >= 40) for n in module.class_counts]
    assert {"val/mAP", "val/mAP_head", "val/mAP_medium"} <= set(trainer.callback_metrics)


class Told(Plain):
    """Another project's data that tells its given counts alone."""

    @property
    def facts(self):
        return DataFacts(len(self.y), CLASSES, np.bincount(self.y, minlength=CLASSES))


def test_given_counts_where_the_truth_is_unknown():
    module = CrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd, **THRESHOLDS)
    # of data before
    module.true_counts.fill_(7)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=Told())
    assert not module.true_counts.any()
    assert {"val/acc_head", "val/acc_medium", "val/acc_tail"} <= set(trainer.callback_metrics)
    assert module.class_groups("acc")["acc_medium"].nonzero().tolist() == [[1]]


def test_counts_that_are_given_by_hand_group_where_the_data_tells_none():
    counts = [170, 24] + [5] * 8
    trainer = trainer_of(max_epochs=1)
    adjusted = LogitAdjustment(NETS["mlp"](), CLASSES, optimizer=sgd, class_counts=counts, **THRESHOLDS)
    trainer.fit(adjusted, datamodule=Plain())
    assert {"val/acc_head", "val/acc_medium", "val/acc_tail"} <= set(trainer.callback_metrics)
    plain = CrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd, **THRESHOLDS)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(plain, datamodule=Plain())
    assert logged(trainer) == set()


class OwnMetrics(CrossEntropy):
    """A method of one's own with one metric."""

    def evaluation_metrics(self, prefix):
        return MetricCollection({"acc": MulticlassAccuracy(CLASSES, average="micro")}, prefix=prefix)


def test_other_metrics_of_a_method_of_ones_own():
    trainer = fit(Recipe(OwnMetrics, THRESHOLDS, trainer=ONE_EPOCH, data=TAIL))
    assert {name for name in trainer.callback_metrics if name.startswith("val/")} == {"val/loss", "val/acc"}


def evaluate(recipe: Recipe) -> dict:
    trainer = fit(recipe)
    module = trainer.lightning_module
    (found,) = trainer.test(module, datamodule=trainer.datamodule, verbose=False)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("samples", [101, 3])
def test_two_ranks_group_as_one_process(samples, ranks):
    recipe = Recipe(CrossEntropy, THRESHOLDS, trainer={**ONE_EPOCH, "precision": "64-true"}, data=TAIL)
    # a last batch that is not full weighs more on two ranks
    recipe = recipe.but(data={"test_samples": samples, "drop_last": True})
    one = evaluate(recipe)
    assert any("acc_head" in name or "acc_tail" in name for name in one)
    two = ranks(evaluate, recipe.but(data={"batch_size": 32}, trainer={"strategy": "ddp", "devices": 2}))
    assert two[0] == pytest.approx(one, abs=1e-6)
    assert two[1] == two[0]
