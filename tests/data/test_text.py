"""Texts in the data family: splits, noise, vocabulary, loaders, resume and what a checkpoint keeps."""

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from testkit.training import LeaveAfter, adam, different, snapshot, trainer_of

from lightning_perturb import load
from lightning_perturb.data import (
    FirstPercent,
    GeneratedReviews,
    InstanceShared,
    TextDataModule,
    WordTokenizer,
    load_tokenizer,
)
from lightning_perturb.methods import DLB, CrossEntropy, LogPert, MetaMixPert
from lightning_perturb.nets import BiLSTMAttention

NET = {"vocab_size": 400, "embedding_dim": 8, "hidden": 6}


class Lines(TextDataModule):
    """A line a text."""

    num_classes = 2

    def __init__(self, lines, test=("a test",), **options):
        super().__init__(tokenizer=WordTokenizer(max_length=5, min_frequency=1), **options)
        self.lines, self.test = lines, test

    def read_texts(self, split):
        if split == "val":
            return None
        lines = self.lines if split == "train" else self.test
        return list(lines), np.arange(len(lines)) % 2


def reviews(**options):
    return GeneratedReviews(samples=64, test_samples=20, batch_size=16, **options)


def fit(method, ckpt_path=None, seed=0, data=None, callbacks=(), **options):
    seed_everything(seed, verbose=False)
    module = method(BiLSTMAttention(2, **NET), 2, optimizer=adam, **options)
    meta = {"meta_size": 8} if method.needs.meta else {}
    trainer = trainer_of(max_epochs=2, callbacks=list(callbacks))
    trainer.fit(module, data or reviews(label_noise=FirstPercent(0.25), val_size=16, **meta), ckpt_path=ckpt_path)
    return trainer


def test_the_vocabulary_is_that_of_the_training_split():
    words = [f"word{i}" for i in range(40)]
    data = Lines(words, val_size=10, meta_size=4)
    data.setup("fit")
    expected = {words[i] for i in data.train_index}
    assert len(expected) == 26
    assert set(data.tokenizer.vocabulary) == {"<pad>", "<unknown>"} | expected
    assert data.facts.vocabulary == data.tokenizer.vocabulary
    held = [x for batch in data.val_dataloader() for x in batch.x]
    assert all(row.tolist() == [1, 0, 0, 0, 0] for row in held)


def test_batches_are_as_long_as_their_longest_text():
    data = Lines(["a", "a b c", "b c", "c"], batch_size=4)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch.x.shape == (4, 5)
    short = data.on_before_batch_transfer(batch, 0)
    assert short.x.shape == (4, 3)
    assert data.raw_texts(short.index) == [
        " ".join(data.tokenizer.vocabulary[i] for i in row if i) for row in short.x.tolist()
    ]
    assert data.on_before_batch_transfer((batch.x, batch.y), 0)[0].shape == (4, 3)
    assert data.on_before_batch_transfer({"train": batch, "meta": None}, 0)["train"].x.shape == (4, 3)


def test_the_first_samples_are_flipped_and_kept_apart():
    data = reviews(label_noise=FirstPercent(0.25))
    data.setup("fit")
    assert data.noisy.nonzero()[0].tolist() == list(range(16))
    positive = FirstPercent(0.5, from_class=1)
    data = reviews(label_noise=positive)
    data.setup("fit")
    assert data.noisy.nonzero()[0].tolist() == np.flatnonzero(data.true_labels == 1)[:16].tolist()


def test_a_test_alone_has_the_ids_of_training():
    one, other = reviews(val_size=16), reviews(val_size=16)
    one.setup("fit")
    one.setup("test")
    for a, b in zip(one.test_dataloader(), other_test(other), strict=True):
        assert torch.equal(a.x, b.x)


def other_test(data):
    data.setup("test")
    return data.test_dataloader()


def test_texts_that_are_read_once_have_the_ids_of_each_module():
    one, other = Lines(["a", "b b", "c", "d d"]), Lines([], train_size=2)
    read = one.read("train")
    for data in (one, other):
        data.read = lambda split, read=read: read
        data.setup("fit")
    assert len(one.tokenizer.vocabulary) == 6
    assert len(other.tokenizer.vocabulary) == 4
    assert set(one.raw_inputs(range(4))[:, 0].tolist()) == {2, 3, 4, 5}
    assert 1 in other.raw_inputs(range(4))[:, 0]
    with pytest.raises(RuntimeError, match="served by no data module"):
        read[0].ids


@pytest.mark.parametrize("method", [LogPert, DLB, MetaMixPert])
def test_methods_train_and_resume_bit_identically(method, tmp_path):
    whole = fit(method)
    saves = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True, filename="{epoch}")
    fit(method, callbacks=[LeaveAfter(1), saves])
    again = fit(method, ckpt_path=saves.best_model_path, seed=9)
    assert different(snapshot(whole), snapshot(again)) == []


def test_a_checkpoint_predicts_texts_as_they_are(tmp_path):
    saves = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True)
    trainer = fit(CrossEntropy, callbacks=[saves])
    data = trainer.datamodule
    tokenizer = load_tokenizer(saves.best_model_path)
    module = load(saves.best_model_path, net=BiLSTMAttention(2, **NET))
    texts = ["the film was anything but wonderful", "unheardof words here"]
    assert torch.equal(tokenizer(texts), data.tokenizer(texts))
    expected = trainer.lightning_module.eval()(data.tokenizer(texts))
    torch.testing.assert_close(module(tokenizer(texts)), expected)
    # another tokenizer of the data gives way to that of the checkpoint
    other = reviews(tokenizer=WordTokenizer(max_length=7))
    found = trainer_of().test(module, other, ckpt_path=saves.best_model_path, verbose=False)
    assert other.tokenizer.vocabulary == tokenizer.vocabulary
    assert found == trainer_of().test(trainer.lightning_module, data, verbose=False)
    # and is back in a training of its own
    trainer_of(max_epochs=1).fit(CrossEntropy(BiLSTMAttention(2, **NET), 2), other)
    assert other.tokenizer.max_length == 7


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_a_network_is_not_read_with_other_ids(run):
    data = reviews(val_size=16)
    module = fit(CrossEntropy, data=data).lightning_module
    other = reviews(val_size=24)
    with pytest.raises(ValueError, match=r"trained with another vocabulary than that of the data\. .* ckpt_path"):
        getattr(trainer_of(), run)(module, other)
    getattr(trainer_of(), run)(module, reviews(val_size=24, tokenizer=data.tokenizer))


def test_training_does_not_go_on_with_other_ids(tmp_path):
    saves = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True)
    fit(CrossEntropy, callbacks=[LeaveAfter(1), saves])
    data = reviews(label_noise=FirstPercent(0.25), val_size=16, tokenizer=WordTokenizer(max_length=7))
    with pytest.raises(ValueError, match=r"another tokenizer or vocabulary than the checkpoint.*Resume with"):
        fit(CrossEntropy, ckpt_path=saves.best_model_path, data=data)
    # the usual one, written out
    usual = WordTokenizer(max_length=96, min_frequency=2, max_words=1000)
    data = reviews(label_noise=FirstPercent(0.25), val_size=16, tokenizer=usual)
    assert fit(CrossEntropy, ckpt_path=saves.best_model_path, data=data).current_epoch == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lines(["a", " ", "b"]), "Text 1 of the train split is empty. Remove it"),
        (lambda: Lines(["a", "b"] * 4, label_noise=InstanceShared(0.2)), "which these are not.*or texts"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make().setup("fit")
