"""Domains of samples: where they come from, and that they stay with their samples in every batch."""

import lightning as L
import numpy as np
import pytest
import torch
from testkit.training import tiny_data, trainer_of
from torch import nn

from lightning_perturb.core import Batch, Needs, PerturbationModule
from lightning_perturb.data import Arrays, PerturbationDataModule, Symmetric
from lightning_perturb.data.domains import count_groups, group_ids

COUNT = 60
X = np.arange(COUNT, dtype=np.float32)[:, None].repeat(2, 1)
Y = np.arange(COUNT) % 3
# a sample's input tells its domain
D = np.arange(COUNT) // 7 % 4


def make(**options):
    return Arrays(X, Y, domains=D, batch_size=8, **options)


def seen(loader):
    batches = [batch for batch in loader if batch is not None]
    assert all(batch.extra["domain"].dtype == torch.int64 for batch in batches)
    return torch.cat([b.x[:, 0] for b in batches]).long(), torch.cat([b.extra["domain"] for b in batches])


class Learning(PerturbationModule):
    """Has a use for meta samples."""

    needs = Needs(meta=True, domains=True)

    def __init__(self):
        super().__init__(nn.Linear(2, 3), 3)
        self.met = []

    def training_step(self, batch, batch_idx):
        self.met.append(Batch.of(batch["meta"]))
        return super().training_step(batch["train"], batch_idx)


@pytest.mark.parametrize("split", ["train", "val", "score", "test", "predict"])
def test_every_batch_has_them(split):
    data = make(val_size=0.2, test_size=0.2, label_noise=Symmetric(0.5))
    data.setup()
    x, d = seen(getattr(data, f"{split}_dataloader")())
    assert len(x) > 8
    assert torch.equal(d, torch.from_numpy(D)[x])


def test_meta_batches_have_them():
    data, module = make(meta_size=6), Learning()
    trainer_of(max_epochs=1).fit(module, datamodule=data)
    for batch in module.met:
        assert torch.equal(batch.extra["domain"], torch.from_numpy(D)[batch.x[:, 0].long()])


def test_a_module_of_another_project_gets_pairs():
    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def training_step(self, batch, _):
            x, y = batch
            return nn.functional.cross_entropy(self.layer(x), y)

        def validation_step(self, batch, _):
            x, _y = batch
            self.layer(x)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer_of(max_epochs=1).fit(Plain(), datamodule=make(val_size=0.2))


def test_facts():
    data = make(val_size=0.2, meta_size=6, label_noise=Symmetric(0.5))
    data.setup("fit")
    expected = np.zeros((3, 4), dtype=int)
    for i in data.train_index:
        expected[data.given_labels[i], D[i]] += 1
    assert data.facts.num_domains == 4
    assert data.facts.group_counts.tolist() == expected.tolist()
    assert data.domain_names == ["0", "1", "2", "3"]
    assert data.facts.class_counts.tolist() == expected.sum(1).tolist()
    plain = Arrays(X, Y, val_size=0.2, meta_size=6, label_noise=Symmetric(0.5))
    plain.setup("fit")
    assert plain.facts.group_counts is None
    assert plain.checksum == data.checksum, "a checkpoint from before there were domains still resumes"


def test_training_does_not_go_on_with_other_domains(tmp_path):
    class Method(PerturbationModule):
        needs = Needs(domains=True)

        def __init__(self):
            super().__init__(nn.Linear(2, 3), 3)

    trainer_of(max_epochs=1).fit(module := Method(), datamodule=make())
    module.trainer.save_checkpoint(tmp_path / "run.ckpt")
    trainer_of(max_epochs=2).fit(Method(), datamodule=make(), ckpt_path=tmp_path / "run.ckpt")
    other = Arrays(X, Y, domains=3 - D, batch_size=8)
    with pytest.raises(ValueError, match="samples are of other domains than those of the checkpoint"):
        trainer_of(max_epochs=2).fit(Method(), datamodule=other, ckpt_path=tmp_path / "run.ckpt")


def test_counts_of_several_labels():
    labels = np.array([[1, 0], [1, 1], [0, 1]])
    assert count_groups(labels, np.array([0, 1, 1]), 2, 3).tolist() == [[1, 1, 0], [0, 2, 0]]
    assert group_ids(np.array([0, 1, 2]), np.array([1, 0, 1]), 2).tolist() == [1, 2, 5]


class Overlapping(PerturbationDataModule):
    """Of any number of places that apply to a sample, training knows one."""

    num_classes = 3
    domain_names = ("none", "some")
    evaluation_domain_names = ("a", "b", "c")

    def read(self, split):
        return None if split == "val" else (torch.from_numpy(X), Y)

    def read_domains(self, split):
        return self.evaluation_domains(split).any(1).astype(np.int64)

    def evaluation_domains(self, split):
        return (np.arange(COUNT)[:, None] >> np.arange(3)) % 2 == 1


def test_overlapping_domains_are_those_of_evaluation():
    data = Overlapping(val_size=0.2, batch_size=8)
    data.setup()
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            expected = data.evaluation_domains("train")[batch.x[:, 0].long()]
            assert np.array_equal(batch.extra["domain"], expected)
    x, d = seen(data.train_dataloader())
    assert torch.equal(d, (x % 8 > 0).long())
    module = PerturbationModule(nn.Linear(2, 3), 3)
    (found,) = trainer_of().test(module, datamodule=data, verbose=False)
    assert {name for name in found if "group_acc/" in name} == {
        f"test/group_acc/{c}/{d}" for c in range(3) for d in "abc"
    }
    assert "test/train_weighted_acc" not in found


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"domains of domains\[3\]=4 is outside 0\.\.1"):
        Arrays(X, Y, domains=[0, 1, 0, 4] + [0] * 56, domain_names=["a", "b"])
    with pytest.raises(ValueError, match="gives 4 domains for 60 samples"):
        Arrays(X, Y, domains=[0, 1, 0, 4])
    with pytest.raises(ValueError, match="domains_test and x_test belong together"):
        Arrays(X, Y, X, Y, domains=D)
    with pytest.raises(ValueError, match="belong to domains, which is None"):
        Arrays(X, Y, domain_names=["a"])

    class Nameless(Overlapping):
        domain_names = ()

    with pytest.raises(ValueError, match="Nameless tells the domain of each sample, but its domain_names are empty"):
        Nameless().setup("fit")

    class Wide(Overlapping):
        evaluation_domain_names = ("a", "b")

    with pytest.raises(ValueError, match=r"Wide \(train\) gives evaluation domains of type bool and shape \(60, 3\)"):
        Wide().setup("fit")


def test_the_testkit_has_groups_of_all_sizes():
    data = tiny_data(domains=2, noise=0)
    data.setup("fit")
    even, odd = data.group_counts[::2].sum(0), data.group_counts[1::2].sum(0)
    assert even[0] > even[1] > 0
    assert odd[1] > odd[0] > 0


# balanced over groups ------------------------------------------------------------------------------------------------


def groups_of(data, positions, labels):
    return labels[positions] * 4 + D[positions]


@pytest.mark.parametrize("by", ["class", "domain", "group"])
def test_training_batches_balanced_by(by):
    data = make(balanced_from=1, balanced_by=by, label_noise=Symmetric(0.3))
    data.setup("fit")
    parts = {"class": data.given_labels, "domain": D, "group": groups_of(data, np.arange(COUNT), data.given_labels)}[by]
    counts = np.bincount(parts)
    assert counts.max() - counts.min() > 2, "unequal parts are needed for this test to say anything"
    loader = data.train_dataloader()
    for epoch, balanced in ((0, False), (1, True)):
        loader.sampler.set_epoch(epoch)
        index = torch.cat([batch.index for batch in loader])
        drawn = np.bincount(parts[index])[counts > 0]
        assert len(index) == COUNT
        assert (drawn.max() - drawn.min() <= 1) == balanced


def test_a_method_asks_for_batches_of_balanced_groups():
    class Balanced(Learning):
        needs = Needs(domains=True, balanced_from=0, balanced_by="group")

        def training_step(self, batch, batch_idx):
            self.met.append(batch)
            return PerturbationModule.training_step(self, batch, batch_idx)

    module, data = Balanced(), make()
    trainer_of(max_epochs=1).fit(module, datamodule=data)
    index = torch.cat([batch.index for batch in module.met]).numpy()
    assert set(np.bincount(groups_of(data, index, Y))) <= {5}
    with pytest.raises(ValueError, match=r"balanced_by='class' contradicts Balanced, which asks for .* by group"):
        trainer_of(max_epochs=1).fit(Balanced(), datamodule=make(balanced_from=0))


def test_meta_samples_balanced_over_groups():
    data, module = make(meta_size=24, meta_by="group", meta_batch_size=12), Learning()
    trainer_of(max_epochs=1).fit(module, datamodule=data)
    assert np.bincount(groups_of(data, data.meta_index, Y)).tolist() == [2] * 12
    for batch in module.met:
        assert sorted(groups_of(data, batch.index.numpy(), Y)) == list(range(12)), "the groups take turns"


def test_faults_of_balance_are_named():
    with pytest.raises(ValueError, match=r"meta_size=600 asks for 50 samples of group 0/1, which has only 4\."):
        make(meta_size=600, meta_by="group").setup("fit")
    absent = Arrays(X, Y, domains=np.where(Y == 1, 0, D), domain_names=list("abcd"), meta_size=12, meta_by="group")
    with pytest.raises(ValueError, match=r"asks for 1 samples of group 1/b, which has only 0\."):
        absent.setup("fit")
    with pytest.raises(
        ValueError, match=r"Learning learns .* of every group, .* leaves 5 of 12 groups .*first: group 1/3"
    ):
        trainer_of(max_epochs=1).fit(Learning(), datamodule=make(meta_size=7, meta_by="group"))
    with pytest.raises(ValueError, match=r"meta_by='group' asks for the domain of each sample, which Arrays does not"):
        Arrays(X, Y, meta_size=6, meta_by="group").setup("fit")
    plain = Arrays(X, Y, balanced_from=0, balanced_by="domain")
    plain.setup("fit")
    with pytest.raises(ValueError, match=r"balanced_by='domain' asks for the domain of each sample"):
        plain.train_dataloader()
    with pytest.raises(ValueError, match="meta_by='group' balances clean samples, but meta_size=0"):
        make(meta_by="group")
    with pytest.raises(ValueError, match="balanced_by='group' balances no batch"):
        make(balanced_by="group")
    several = Arrays(X, np.eye(3, dtype=int)[Y], domains=D, balanced_from=0, balanced_by="group")
    several.setup("fit")
    with pytest.raises(ValueError, match="takes samples of one class each"):
        several.train_dataloader()
