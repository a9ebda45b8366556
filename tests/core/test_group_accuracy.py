"""Accuracy by group, a class in a domain: against a table made with NumPy, however batches and ranks fall."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    all_moments,
    different,
    fit,
    multi_hot,
    resume,
    sgd,
    snapshot,
    tiny_data,
    trainer_of,
)
from torch.utils.data import DataLoader

import lightning_perturb
from lightning_perturb.core import Needs
from lightning_perturb.core.group_accuracy import GroupAccuracy, group_values
from lightning_perturb.methods import BinaryCrossEntropy, CrossEntropy

ONE_EPOCH = {"max_epochs": 1}
DOMAINS = {"domains": 3, "val_size": 30, "samples": 126, "test_samples": 61, "eval_batch_size": 16}


class InDomains(CrossEntropy):
    """Reads the domain of each sample."""

    needs = Needs(domains=True)

    def perturb_loss(self, loss, logits, batch):
        return loss * (1 + self.domains(batch))


def problem(samples=60, classes=3, domains=4):
    generator = np.random.default_rng(0)
    y, d = generator.integers(0, classes, samples), generator.integers(0, domains, samples)
    # one group without a sample
    d[(y == 1) & (d == 2)] = 0
    return y, d, generator.random(samples) < 0.6


def table(y, d, right, classes, domains):
    """NaN where a group is empty."""
    cells = [[right[(y == c) & (d == k)] for k in range(domains)] for c in range(classes)]
    return np.array([[cell.mean() if len(cell) else np.nan for cell in row] for row in cells])


def metric_of(y, d, right, batch, classes=3):
    metric = GroupAccuracy(classes)
    for start in range(0, len(y), batch):
        metric.update(*(torch.from_numpy(part[start : start + batch]) for part in (right, y, d)))
    return metric


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_against_numpy(batch, order):
    y, d, right = (part[np.argsort(order * problem()[1])] for part in problem())
    metric = metric_of(y, d, right, batch)
    assert metric.agree()
    expected = table(y, d, right, 3, 4)
    assert np.isnan(expected).any()
    assert np.allclose(metric.compute(), expected, equal_nan=True)
    metric.reset()
    assert not metric.agree()


def test_overlapping_domains():
    y, _, right = problem()
    members = np.random.default_rng(1).random((60, 4)) < 0.3
    metric = metric_of(y, members, right, 7)
    assert metric.overlapping
    expected = [[right[(y == c) & members[:, k]].mean() for k in range(4)] for c in range(3)]
    assert np.allclose(metric.compute(), expected)


def rank_share(y, d, right, sizes):
    """Rank 0 has samples of the first domains alone, rank 1 the rest."""
    rank = torch.distributed.get_rank()
    part = slice(0, sizes) if rank == 0 else slice(sizes, None)
    metric = metric_of(y[part], d[part], right[part], 8)
    return metric.agree(), metric.compute().numpy()


@pytest.mark.parametrize("sizes", [0, 20, 60])
def test_two_ranks_that_see_other_domains(ranks, sizes):
    y, d, right = problem()
    order = np.argsort(d, kind="stable")
    y, d, right = y[order], d[order], right[order]
    for known, found in ranks(rank_share, y, d, right, sizes):
        assert known
        assert np.allclose(found, table(y, d, right, 3, 4), equal_nan=True)


@pytest.mark.parametrize(
    "domain", [torch.zeros(3), torch.zeros(2, dtype=torch.long), torch.tensor([0, -1, 0]), torch.zeros(3, 2).long()]
)
def test_other_things_of_that_name_are_told(domain):
    with pytest.raises(ValueError, match=r"A batch of 3 samples has a 'domain' of type .* ids from 0"):
        GroupAccuracy(2).update(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long), domain)


def test_what_is_logged_of_them():
    accuracy = torch.tensor([[0.5, torch.nan], [0.25, 1.0]])
    found = group_values(accuracy, torch.tensor([[70, 9], [10, 20]]), ["land/bird", "water"], ["sea", "wood"])
    assert {name: pytest.approx(float(value)) for name, value in found.items()} == {
        "worst_group_acc": 0.25,
        "mean_group_acc": 1.75 / 3,
        "train_weighted_acc": 0.575,
        "group_acc/land-bird/sea": 0.5,
        "group_acc/water/sea": 0.25,
        "group_acc/water/wood": 1.0,
    }
    # counts of other groups say nothing; names of another number are no names
    found = group_values(accuracy, torch.zeros(0), None, ["sea"])
    assert set(found) == {
        "worst_group_acc", "mean_group_acc", "group_acc/0/0", "group_acc/1/0", "group_acc/1/1",
    }  # fmt: skip
    # nobody told of the last domain
    found = group_values(accuracy, torch.ones(2, 3), ["a", "b"], ["sea", "wood", "town"])
    assert float(found["train_weighted_acc"]) == pytest.approx(1.75 / 3)
    assert {name for name in found if "/" in name} == {"group_acc/a/sea", "group_acc/b/sea", "group_acc/b/wood"}
    assert group_values(torch.full((2, 2), torch.nan), None, (), ()) == {}
    assert set(group_values(torch.ones(60, 2), None, (), ())) == {"worst_group_acc", "mean_group_acc"}


# in a run -------------------------------------------------------------------------------------------------------------


def by_hand(module, data, split):
    data.setup("test")
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    with torch.no_grad():
        pred = torch.cat([module.eval()(batch.x).argmax(1) for batch in batches])
    y, d = (
        torch.cat([part(batch) for batch in batches]).numpy() for part in (lambda b: b.y, lambda b: b.extra["domain"])
    )
    return table(y, d, (pred.numpy() == y).astype(float), CLASSES, 3)


def test_a_run_logs_them(tmp_path):
    trainer = fit(Recipe(CrossEntropy, trainer={"max_epochs": 2}, data=DOMAINS))
    module, data = trainer.lightning_module, trainer.datamodule
    accuracy = by_hand(module, data, "val")
    logged = trainer.callback_metrics
    assert float(logged["val/worst_group_acc"]) == pytest.approx(np.nanmin(accuracy))
    assert float(logged["val/mean_group_acc"]) == pytest.approx(np.nanmean(accuracy))
    assert module.group_counts.tolist() == data.facts.group_counts.tolist()
    trainer.save_checkpoint(tmp_path / "run.ckpt")

    # the checkpoint alone knows how frequent groups were in training
    again = lightning_perturb.load(tmp_path / "run.ckpt", net=NETS["mlp"]())
    (found,) = trainer_of().test(again, datamodule=tiny_data(**DOMAINS), verbose=False)
    accuracy = by_hand(module, data, "test")
    weights = np.where(np.isnan(accuracy), 0, data.facts.group_counts)
    assert found["test/train_weighted_acc"] == pytest.approx((weights * np.nan_to_num(accuracy)).sum() / weights.sum())
    groups = {name: value for name, value in found.items() if "group_acc/" in name}
    assert groups == {
        f"test/group_acc/{c}/{d}": pytest.approx(accuracy[c, d])
        for c in range(CLASSES) for d in range(3) if not np.isnan(accuracy[c, d])
    }  # fmt: skip
    assert len(groups) < 30, "a group without samples is needed for this test to say anything"


def test_nothing_is_logged_without_domains():
    trainer = fit(Recipe(CrossEntropy, trainer=ONE_EPOCH, data={"val_size": 16}))
    assert not [name for name in trainer.callback_metrics if "group" in name or "weighted" in name]
    assert trainer.lightning_module.group_counts.numel() == 0
    assert trainer.datamodule.facts.num_domains == 0
    data = tiny_data(domains=3, val_size=16, multi_label=True)
    module = BinaryCrossEntropy(NETS["mlp"](), CLASSES, optimizer=sgd)
    trainer_of(**ONE_EPOCH).fit(module, datamodule=data)
    assert data.facts.group_counts.sum(1).tolist() == data.class_counts.tolist()


def test_models_are_chosen_by_the_worst_group(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/worst_group_acc", mode="max")
    stop = EarlyStopping("val/worst_group_acc", mode="max", patience=50)
    trainer = fit(Recipe(CrossEntropy, data=DOMAINS), callbacks=[best, stop])
    assert float(best.best_model_score) == float(stop.best_score)
    module = lightning_perturb.load(best.best_model_path, net=NETS["mlp"]())
    assert np.nanmin(by_hand(module, trainer.datamodule, "val")) == pytest.approx(float(best.best_model_score))


def test_a_checkpoint_from_before_groups_were_counted(tmp_path):
    trainer = fit(Recipe(CrossEntropy, trainer=ONE_EPOCH, data=DOMAINS))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    counts = checkpoint["state_dict"].pop("group_counts")
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert lightning_perturb.load(tmp_path / "old.ckpt", net=NETS["mlp"]()).group_counts.numel() == 0
    resumed = fit(Recipe(CrossEntropy, trainer={"max_epochs": 2}, data=DOMAINS), ckpt_path=tmp_path / "old.ckpt")
    assert torch.equal(resumed.lightning_module.group_counts, counts)


# methods that need them -----------------------------------------------------------------------------------------------


def test_a_method_on_data_without_domains():
    with pytest.raises(
        ValueError, match="InDomains trains on samples of several domains, of which the data tells none"
    ):
        fit(Recipe(InDomains), data=tiny_data())


def test_a_loader_of_ones_own():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, i):
            return {"x": torch.full((64,), float(i)), "y": i % CLASSES, "domain": i % 2}

    module = InDomains(NETS["mlp"](), CLASSES, optimizer=sgd)
    trainer = trainer_of(**ONE_EPOCH)
    trainer.fit(module, DataLoader(Rows(), 8), DataLoader(Rows(), 8))
    assert float(trainer.callback_metrics["val/worst_group_acc"]) == 0
    pairs = DataLoader([(row["x"], row["y"]) for row in map(Rows().__getitem__, range(32))], 8)
    with pytest.raises(ValueError, match=r"InDomains needs the domain of each sample, as ids \[B\], .* has none"):
        trainer_of(**ONE_EPOCH).fit(module, pairs)


def test_labels_of_several_classes_are_counted_by_domain():
    data = tiny_data(domains=2, multi_label=True, noise=0)
    data.setup("fit")
    rows = multi_hot(torch.from_numpy(data.true_labels.argmax(1)))
    assert rows.shape == data.true_labels.shape
    for d in range(2):
        assert data.group_counts[:, d].tolist() == data.true_labels[data.domains == d].sum(0).tolist()


def two_ranks():
    module = InDomains(NETS["mlp"](), CLASSES, optimizer=sgd)
    trainer = trainer_of(max_epochs=1, devices=2, strategy="ddp")
    trainer.fit(module, datamodule=tiny_data(**DOMAINS))
    return {n: float(v) for n, v in trainer.callback_metrics.items()}, module.group_counts.tolist(), module.state_dict()


def test_a_run_on_two_ranks(ranks):
    (first, counts, state), (second, _, _) = ranks(two_ranks)
    groups = {name for name in first if "group" in name}
    assert groups
    assert {name: first[name] for name in groups} == {name: second[name] for name in groups}
    data = tiny_data(**DOMAINS)
    data.setup("fit")
    assert counts == data.group_counts.tolist()
    module = InDomains(NETS["mlp"](), CLASSES)
    module.load_state_dict(state)
    assert first["val/worst_group_acc"] == pytest.approx(np.nanmin(by_hand(module, data, "val")))


def test_a_run_on_balanced_groups_is_resumed_anywhere(tmp_path):
    balanced = {**DOMAINS, "balanced_from": 1, "balanced_by": "group", "augment": True}
    recipe = Recipe(InDomains, net="dropout", data=balanced)
    whole = snapshot(fit(recipe, callbacks=all_moments(tmp_path)))
    for path in sorted(tmp_path.glob("*.ckpt")):
        if int(path.stem.split("=")[-1]) < int(whole["steps"][0]):
            assert different(whole, snapshot(resume(recipe, path))) == []
