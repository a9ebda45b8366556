"""Clean samples that the data brings, instead of some that are carved from the training set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from testkit.images import picture
from testkit.training import trainer_of

from lightning_perturb.core import Batch, Needs, PerturbationModule
from lightning_perturb.data import Arrays, ImageLists, LabelsFromFile, Symmetric
from lightning_perturb.data.balanced import BalancedSampler
from lightning_perturb.methods import GoldLossCorrection, MetaWeightNet, TransferredRobustLoss
from lightning_perturb.nets import MLP, ConvNet

CLASSES, COUNT = 3, 30
Y = np.arange(COUNT) % CLASSES
CLEAN = np.array([0, 0, 0, 0, 1, 1, 2, 2])
# a sample's input is its position
X = np.arange(COUNT + len(CLEAN), dtype=np.float32)[:, None]


class WithClean(Arrays):
    brings_meta = True

    def read_meta(self):
        return torch.from_numpy(X[COUNT:]), CLEAN


def data(**options):
    return WithClean(X[:COUNT], Y, num_classes=CLASSES, **{"batch_size": 5, "meta_batch_size": 4, **options})


def ready(**options):
    found = data(**options)
    found.setup("fit")
    return found


class Plain(PerturbationModule):
    """Notes what it is served."""

    def __init__(self):
        super().__init__(torch.nn.Linear(1, CLASSES), CLASSES)
        self.seen = {"train": [], "meta": [], "val": []}

    def training_step(self, batch, batch_idx):
        streams = batch if isinstance(batch, dict) else {"train": batch}
        for name, part in streams.items():
            self.seen[name] += zip(part.x[:, 0].int().tolist(), part.index.tolist(), part.y.tolist(), strict=True)
        return super().training_step(streams["train"], batch_idx)

    def validation_step(self, batch, batch_idx):
        part = Batch.of(batch)
        self.seen["val"] += zip(part.x[:, 0].int().tolist(), part.index.tolist(), part.y.tolist(), strict=True)
        super().validation_step(batch, batch_idx)


class Learning(Plain):
    needs = Needs(meta=True)


def seen(module, found):
    trainer_of(max_epochs=1).fit(module, datamodule=found)
    return module.seen


def positions(rows):
    assert all(x == index for x, index, _ in rows), "a sample has the input of another"
    return sorted({index for _, index, _ in rows})


def test_they_count_on_behind_the_training_set():
    found = ready(label_noise=Symmetric(1.0), val_size=6)
    assert found.meta_index.tolist() == list(range(COUNT, COUNT + len(CLEAN)))
    assert sorted([*found.train_index, *found.val_index]) == list(range(COUNT))
    assert found.given_labels[COUNT:].tolist() == CLEAN.tolist()
    assert (found.given_labels[:COUNT] != Y).all()
    assert found.noise_rate == 1.0
    assert found.facts.num_samples == COUNT + len(CLEAN)
    assert found.raw_inputs([2, COUNT + 3])[:, 0].tolist() == [2, COUNT + 3]
    # the draws of the training set are those that it has without them
    alone = Arrays(X[:COUNT], Y, num_classes=CLASSES, label_noise=Symmetric(1.0), val_size=6)
    alone.setup("fit")
    assert alone.given_labels.tolist() == found.given_labels[:COUNT].tolist()
    assert alone.val_index.tolist() == found.val_index.tolist()
    assert alone.checksum != found.checksum


def test_labels_of_a_file_count_without_them(tmp_path):
    np.save(tmp_path / "labels.npy", (Y + 1) % CLASSES)
    assert (ready(label_noise=LabelsFromFile(str(tmp_path / "labels.npy"))).given_labels[:COUNT] != Y).all()


def test_methods_that_learn_from_them_train_on_no_others():
    found = data(label_noise=Symmetric(1.0))
    learning = seen(Learning(), found)
    assert positions(learning["train"]) == list(range(COUNT))
    assert positions(learning["meta"]) == list(range(COUNT, COUNT + len(CLEAN)))
    assert all(y == CLEAN[index - COUNT] for _, index, y in learning["meta"])


@pytest.mark.parametrize(("use", "where"), [("drop", None), ("merge", "train"), ("validate", "val")])
def test_what_other_methods_get_of_them(use, where):
    plain = seen(Plain(), data(label_noise=Symmetric(1.0), meta_labels=use))
    own = list(range(COUNT, COUNT + len(CLEAN)))
    expected = {"train": list(range(COUNT)), "val": []}
    if where is not None:
        expected[where] = expected[where] + own
        assert {index: y for _, index, y in plain[where] if index >= COUNT} == dict(zip(own, CLEAN, strict=True))
    assert {name: positions(plain[name]) for name in expected} == expected


def test_some_of_them_are_balanced_over_the_classes():
    found = ready(meta_size=6)
    assert np.bincount(CLEAN[found.meta_index - COUNT]).tolist() == [2, 2, 2]
    assert found.facts.num_samples == COUNT + len(CLEAN)
    with pytest.raises(ValueError, match=r"meta_size=9 asks for 3 samples of class 1, which has only 2.*at most 6"):
        ready(meta_size=9)


def test_a_class_that_they_lack_is_named():
    class Lacking(WithClean):
        def read_meta(self):
            return torch.from_numpy(X[COUNT:]), np.minimum(CLEAN, 1)

    with pytest.raises(ValueError, match="the list of clean samples leaves 1 of 3 classes without a clean sample"):
        seen(Learning(), Lacking(X[:COUNT], Y, num_classes=CLASSES))


def test_inputs_of_another_kind_are_named():
    class Other(WithClean):
        def read_meta(self):
            return torch.zeros(len(CLEAN), 2), CLEAN

    with pytest.raises(ValueError, match=r"float32 of shape \(1,\), clean ones torch.float32 of shape \(2,\)"):
        Other(X[:COUNT], Y, num_classes=CLASSES).setup("fit")


def test_they_have_domains_where_training_samples_have_some():
    class Placed(WithClean):
        domain_names = ["here", "there"]

        def read_domains(self, split):
            return Y % 2

        def read_meta_domains(self):
            return CLEAN % 2

    found = Placed(X[:COUNT], Y, num_classes=CLASSES, meta_labels="merge")
    found.setup("fit")
    assert found.domains.tolist() == [*(Y % 2), *(CLEAN % 2)]
    (batch,) = list(found.score_dataloader())
    assert batch.extra["domain"].tolist() == (Y % 2).tolist()

    class Nowhere(Placed):
        def read_meta_domains(self):
            return None

    with pytest.raises(ValueError, match="Nowhere gives training samples domains, but its clean samples none"):
        Nowhere(X[:COUNT], Y, num_classes=CLASSES).setup("fit")


def test_an_unbalanced_stream_has_the_proportions_of_the_set_everywhere():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 20, 10]))
    order = BalancedSampler(torch.arange(70), labels, 7, seed=3).order(1).numpy()
    assert sorted(order) == list(range(70))
    for start in range(0, 70, 7):
        counts = np.bincount(labels[order[start : start + 7]], minlength=3)
        assert (abs(counts - [4, 2, 1]) <= 1).all()
    # where all classes are of one size they take turns
    equal = np.random.default_rng(1).permutation(np.arange(30) % 3)
    turns = equal[BalancedSampler(torch.arange(30), equal, 3, seed=3).order(0).numpy()].reshape(10, 3)
    assert (np.sort(turns, axis=1) == [0, 1, 2]).all()


# lists of files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lists(tmp_path):
    """Twelve training images and six clean ones, of which two are training images as well."""
    for number in range(16):
        picture(tmp_path / f"{number}.png", seed=number, width=20, height=20)
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {(i + 1) % CLASSES}\n" for i in range(12)))
    # with the mark that some editors put in front
    clean = "\ufeff" + "".join(f"{i}.png {i % CLASSES}\n" for i in range(10, 16))
    (tmp_path / "clean.txt").write_text(clean, encoding="utf-8")
    names = {"train_list": str(tmp_path / "train.txt"), "meta_list": str(tmp_path / "clean.txt")}
    return lambda **options: ImageLists(
        str(tmp_path), **{**names, "size": 16, "load_size": 20, "batch_size": 4, "labels_known": False, **options}
    )


def test_clean_images_leave_the_training_list(lists):
    found = lists()
    found.setup("fit")
    assert len(found.train_index) == 10
    assert found.meta_index.tolist() == list(range(10, 16))
    assert found.given_labels[10:].tolist() == [i % CLASSES for i in range(10, 16)]
    assert found._train[0].path(10).endswith("10.png")
    with pytest.raises(FileNotFoundError, match=r"meta_list: .*no\.txt does not exist"):
        lists(meta_list="no.txt").setup("fit")
    Path(found.lists["meta"]).write_text("1.png 7\n")
    with pytest.raises(ValueError, match=r"clean\.txt: label\[0\]=7"):
        lists(num_classes=3).setup("fit")


def net():
    return ConvNet(CLASSES, width=2)


def test_methods_learn_from_a_list_and_resume_exactly(lists, tmp_path):
    def weights(ckpt_path=None, callbacks=()):
        torch.manual_seed(0)
        module = MetaWeightNet(net(), CLASSES)
        trainer = trainer_of(max_epochs=2, callbacks=list(callbacks))
        trainer.fit(module, datamodule=lists(), ckpt_path=ckpt_path)
        return torch.cat([part.detach().flatten() for part in module.parameters()])

    saves = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = weights(callbacks=[saves])
    assert torch.equal(weights(tmp_path / "saved/step=2.ckpt"), whole)
    assert torch.equal(weights(tmp_path / "saved/step=4.ckpt"), whole)


def test_a_matrix_is_estimated_from_a_list(lists):
    module = GoldLossCorrection(net(), CLASSES, estimate_epochs=1)
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, datamodule=lists())
    assert trainer.global_step == 6
    # six of sixteen images are clean
    assert float(module.share) == pytest.approx(6 / 16)


def test_a_transferred_loss_needs_none_of_them(lists):
    found = lists(meta_labels="merge")
    trainer_of(max_epochs=1).fit(TransferredRobustLoss(net(), CLASSES, adjuster="digits-gce"), datamodule=found)
    assert len(found.train_index) == 16
    assert not len(found.meta_index)


def test_a_network_of_features_learns_too():
    module = MetaWeightNet(MLP(CLASSES, 1, (4,)), CLASSES)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=data())
    assert trainer.global_step == 6
