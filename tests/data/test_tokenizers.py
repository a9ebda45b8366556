"""From texts to ids."""

import pytest
import torch

from lightning_perturb.core.plain import as_plain, from_plain
from lightning_perturb.data import TransformersTokenizer, WordTokenizer, load_tokenizer

TEXTS = ["The film is good. The end!", "It isn't good,<br />the film's bad.", "GOOD"]


def test_words_are_split_as_word_vectors_were():
    split = WordTokenizer().split
    assert split(TEXTS[0]) == ["the", "film", "is", "good", ".", "the", "end", "!"]
    assert split(TEXTS[1]) == ["it", "is", "n't", "good", ",", "the", "film", "'s", "bad", "."]
    assert split("can’t, 10/10 naïve") == ["ca", "n't", ",", "10", "/", "10", "naïve"]


def test_ids_are_by_frequency_and_then_by_alphabet():
    tokenizer = WordTokenizer(max_length=6, min_frequency=2).fitted(TEXTS)
    # good 3, the 3, film 2, is 2, . 2
    assert tokenizer.vocabulary == ("<pad>", "<unknown>", "good", "the", ".", "film", "is")
    found = tokenizer(["good bad film", "the the the the the the the"])
    assert found.dtype == torch.int32
    assert found.tolist() == [[2, 1, 5, 0, 0, 0], [3] * 6]
    assert tokenizer.ids("good bad").tolist() == [[2, 1]]


def test_the_most_frequent_words_are_kept():
    assert WordTokenizer(max_words=4, min_frequency=1).fitted(TEXTS).words == ["good", "the"]


def test_a_subclass_that_splits_another_way_stays_one():
    class Letters(WordTokenizer):
        def __init__(self, max_length=4, words=None):
            super().__init__(max_length, 1, words=words)

        def split(self, text):
            return list(text)

    tokenizer = Letters(3).fitted(["abba", "b"])
    assert type(tokenizer) is Letters
    assert tokenizer(["bab", "abba"]).tolist() == [[2, 3, 2], [3, 2, 2]]
    assert torch.equal(from_plain(as_plain(tokenizer))(["ba"]), tokenizer(["ba"]))


def test_it_travels_as_plain_data():
    tokenizer = WordTokenizer(max_length=9, max_words=50).fitted(TEXTS)
    again = from_plain(as_plain(tokenizer))
    assert torch.equal(again(TEXTS), tokenizer(TEXTS))
    assert again.fitted(["another text another text"]) is again


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WordTokenizer(max_length=0), "max_length=0 must be"),
        (lambda: WordTokenizer(max_words=2), "max_words=2 leaves no word.*Give 3"),
        (lambda: WordTokenizer(words=["a", "b", "a"]), "lists 'a' twice"),
        (lambda: WordTokenizer()(["a"]), "no vocabulary yet"),
        (lambda: WordTokenizer(min_frequency=5).fitted(TEXTS), "min_frequency=5 leaves no word"),
        (lambda: WordTokenizer(words=["a"])(["a", " <br /> "]), "Text 1 of 2 has no words"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_checkpoint_without_texts(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a file.*\.ckpt"):
        load_tokenizer(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "images.ckpt")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "images.ckpt")


def test_the_optional_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"TransformersTokenizer needs.*lightning-perturb\[text\]"):
        TransformersTokenizer("folder")(["a"])
