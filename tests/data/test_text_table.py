"""Users' own texts in tables."""

import json

import pytest

from lightning_perturb.data import TextTable

ROWS = [("a fine film", "good"), ('dull, and "long"\nvery', "bad"), ("what a mess", "bad"), ("lovely", "good")]


def csv_file(path, rows=ROWS, header="text,label", mark="\ufeff"):
    quoted = ['"{}",{}'.format(text.replace('"', '""'), label) for text, label in rows]
    path.write_text(mark + "\n".join([header, *quoted]) + "\n", encoding="utf-8")
    return str(path)


def jsonl_file(path, rows):
    path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows) + "\n\n")
    return str(path)


def test_csv(tmp_path):
    data = TextTable(csv_file(tmp_path / "train.csv"), test=csv_file(tmp_path / "test.csv", ROWS[:2]))
    assert (data.num_classes, data.class_names) == (2, ["bad", "good"])
    data.setup()
    assert data.true_labels.tolist() == [1, 0, 0, 1]
    assert data.raw_texts(range(4)) == [text for text, _ in ROWS]
    (batch,) = data.test_dataloader()
    assert batch.y.tolist() == [1, 0]


def test_tsv_and_columns(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("score\treview\tstars\n1\tgood, really\t10\n2\tbad\t2\n3\tso so\t9\n")
    data = TextTable(str(path), text="review", label="stars")
    assert data.class_names == ["2", "9", "10"]
    data.setup("fit")
    assert data.true_labels.tolist() == [2, 0, 1]
    assert not data.has_test


def test_jsonl_with_a_validation_table(tmp_path):
    train, val = jsonl_file(tmp_path / "a.jsonl", [("a b", 0), ("c", 1)] * 6), [("d", 1)]
    data = TextTable(train, val=jsonl_file(tmp_path / "b.jsonl", val), test_size=0.25)
    data.setup()
    assert len(data.train_index) == 9
    assert [batch.y.tolist() for batch in data.val_dataloader()] == [[1]]
    assert sum(len(batch) for batch in data.test_dataloader()) == 3
    with pytest.raises(ValueError, match="val_size=2 asks for a validation split"):
        TextTable(train, val=jsonl_file(tmp_path / "b.jsonl", val), val_size=2).setup("fit")


def test_long_texts(tmp_path):
    rows = [("word " * 40_000, "good"), ("short", "bad")]
    data = TextTable(csv_file(tmp_path / "train.csv", rows))
    data.setup("fit")
    assert len(data.raw_texts([0])[0]) == 200_000


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0.5), ("b", 1)], "line 1: the label 0.5 is no class. Give whole numbers"),
        ([("a", "1.0"), ("b", "0")], "the label '1.0' is no class"),
        ([("a", None), ("b", 1)], "the label None is no class"),
        ([("a", " "), ("b", 1)], "the label ' ' is no class"),
        ([("a", 1), ("  ", 0)], "line 2: the text is empty"),
        ([("a", 1), (3, 0)], "line 2: the text is empty, or no text"),
        ([("a", 1), ("b", 1)], r"has one class alone \(1\)"),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        TextTable(jsonl_file(tmp_path / "train.jsonl", rows)).setup("fit")


def test_bad_files(tmp_path):
    good = csv_file(tmp_path / "train.csv")
    with pytest.raises(FileNotFoundError, match=r"train='none.csv' is not a file"):
        TextTable("none.csv").setup("fit")
    (tmp_path / "train.txt").write_text("text")
    with pytest.raises(ValueError, match="unknown ending"):
        TextTable(str(tmp_path / "train.txt")).setup("fit")
    with pytest.raises(ValueError, match=r"no column 'review'; the columns are text, label. Name it by text"):
        TextTable(good, text="review").setup("fit")
    with pytest.raises(ValueError, match=r"no column 'stars'.*Name it by label"):
        TextTable(good, label="stars").setup("fit")
    with pytest.raises(ValueError, match="label 'worse' is none of the training table's: bad, good"):
        TextTable(good, test=csv_file(tmp_path / "test.csv", [("a", "worse")])).setup("test")
    with pytest.raises(ValueError, match=r"test_size=0.5 and test="):
        TextTable(good, test=good, test_size=0.5)
    (tmp_path / "ragged.csv").write_text("text,label\na film, a mess,bad\nb,good\n")
    with pytest.raises(ValueError, match="line 2: the row has another number of fields"):
        TextTable(str(tmp_path / "ragged.csv")).setup("fit")
    (tmp_path / "open.csv").write_text('label,text\nbad,"a mess\ngood,fine\ngood,lovely\n')
    with pytest.raises(ValueError, match=r'open\.csv, line 2: .*write those in it twice \(""\)'):
        TextTable(str(tmp_path / "open.csv")).setup("fit")
    (tmp_path / "half.tsv").write_text('label\ttext\nbad\t"the film" is a mess\ngood\tfine\n')
    with pytest.raises(ValueError, match=r"half\.tsv, line 2: .*Put a text that begins with a quotation mark"):
        TextTable(str(tmp_path / "half.tsv")).setup("fit")
    (tmp_path / "old.csv").write_bytes("text,label\ncaf\xe9,good\nno,bad\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"old\.csv is no UTF-8 .*Save it as UTF-8"):
        TextTable(str(tmp_path / "old.csv")).setup("fit")
    for line, message in (("[1]", "is no object but list"), ("{", "is no JSON")):
        (tmp_path / "x.jsonl").write_text(line)
        with pytest.raises(ValueError, match=message):
            TextTable(str(tmp_path / "x.jsonl")).setup("fit")
