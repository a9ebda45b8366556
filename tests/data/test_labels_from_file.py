import pickle

import numpy as np
import pytest
import torch

from lightning_perturb.data.label_noise import Chain, LabelsFromFile, Symmetric


def rng(seed=0):
    return np.random.default_rng(seed)


TRUE = np.array([0, 1, 2, 0, 1, 2, 0, 1])
HUMAN = np.array([0, 2, 2, 1, 1, 2, 0, 0])


@pytest.fixture
def cifar_n(tmp_path):
    path = tmp_path / "CIFAR-10_human.pt"
    torch.save({"clean_label": TRUE, "worse_label": HUMAN, "aggre_label": TRUE.copy()}, path)
    return path


def test_cifar_n_file(cifar_n):
    np.testing.assert_array_equal(LabelsFromFile(str(cifar_n), key="worse_label")(TRUE, 3, rng()), HUMAN)
    np.testing.assert_array_equal(LabelsFromFile(str(cifar_n), key="aggre_label")(TRUE, 3, rng()), TRUE)
    # after a split: only the rows of the samples that are left, in whatever order
    index = np.array([7, 1, 3])
    drawn = LabelsFromFile(str(cifar_n), key="worse_label")(TRUE[index], 3, rng(), index=index, total=8)
    np.testing.assert_array_equal(drawn, HUMAN[index])


class _OldNumpy(pickle._Pickler):
    """Writes the module name of numpy 1, as the published files have it."""

    def save_global(self, obj, name=None):
        module = getattr(obj, "__module__", None)
        if module == "numpy._core.multiarray":
            self.write(b"cnumpy.core.multiarray\n" + obj.__name__.encode() + b"\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch = pickle._Pickler.dispatch | {type(np.empty(0).__reduce__()[0]): save_global}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_cifar_n_file_written_by_an_old_numpy(tmp_path, zipped, dtype):
    class module:  # what torch.save needs of a pickle module
        Pickler = _OldNumpy

        @staticmethod
        def dump(obj, file, protocol=None):
            _OldNumpy(file, protocol).dump(obj)

    path = tmp_path / "old.pt"
    content = {"clean_label": TRUE.astype(dtype), "worse_label": HUMAN.astype(dtype)}
    torch.save(content, path, pickle_module=module, _use_new_zipfile_serialization=zipped)
    assert b"numpy.core.multiarray" in path.read_bytes()
    np.testing.assert_array_equal(LabelsFromFile(str(path), key="worse_label")(TRUE, 3, rng()), HUMAN)


def test_pt_may_hold_tensors_lists_or_one_vector(tmp_path):
    path = str(tmp_path / "a.pt")
    for content, key in ((torch.from_numpy(HUMAN), None), (HUMAN.tolist(), None), ({"y": torch.tensor(HUMAN)}, "y")):
        torch.save(content, path)
        np.testing.assert_array_equal(LabelsFromFile(path, key=key)(TRUE, 3, rng()), HUMAN)
    with pytest.raises(ValueError, match=r"key=None is not in .*Choose one of: y"):
        LabelsFromFile(path)(TRUE, 3, rng())
    torch.save(HUMAN, path)
    with pytest.raises(ValueError, match=r"holds one vector. Drop key"):
        LabelsFromFile(path, key="y")(TRUE, 3, rng())


class _Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a label file ran code')",))


def test_pt_with_code_is_refused_and_not_run(tmp_path):
    path = str(tmp_path / "evil.pt")
    torch.save({"worse_label": _Code()}, path)
    with pytest.raises(ValueError, match="not a file of plain label vectors"):
        LabelsFromFile(path, key="worse_label")(TRUE, 3, rng())
    torch.save({"worse_label": np.array([_Code()], dtype=object)}, path)
    with pytest.raises(ValueError, match="not a file of plain label vectors"):
        LabelsFromFile(path, key="worse_label")(TRUE, 3, rng())


def test_reading_leaves_the_allowed_globals_as_they_were(cifar_n):
    mine = [np.ndarray, np.dtype]
    with torch.serialization.safe_globals(mine):
        before = set(torch.serialization.get_safe_globals())
        LabelsFromFile(str(cifar_n), key="worse_label")(TRUE, 3, rng())
        assert set(torch.serialization.get_safe_globals()) == before


def test_file_of_another_order_is_noticed(cifar_n):
    with pytest.raises(
        ValueError, match=r"clean_label in .* differs .* for 2 of 8 samples \(first: position 0, 0 in the"
    ):
        LabelsFromFile(str(cifar_n), key="worse_label")(TRUE[[1, 0, *range(2, 8)]], 3, rng())


def test_npy_labels(tmp_path):
    path = str(tmp_path / "y.npy")
    np.save(path, HUMAN.astype(np.uint8))
    np.testing.assert_array_equal(LabelsFromFile(path)(TRUE, 3, rng()), HUMAN)
    np.save(path, np.array({"worse_label": HUMAN}, dtype=object))
    with pytest.raises(ValueError, match=r"use the .pt form"):
        LabelsFromFile(path)(TRUE, 3, rng())


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("\n".join(map(str, HUMAN)), None),
        ("label\n" + "\n".join(map(str, HUMAN)) + "\n", None),
        ("\ufefflabel, name\n" + "\n".join(f"{y},a{i}" for i, y in enumerate(HUMAN)), "label"),
        ("index,label\n" + "\n".join(f"{i},{HUMAN[i]}" for i in reversed(range(8))), "label"),
    ],
)
def test_csv_labels(tmp_path, text, column):
    (tmp_path / "y.csv").write_text(text, encoding="utf-8")
    noise = LabelsFromFile(str(tmp_path / "y.csv"), column=column)
    np.testing.assert_array_equal(noise(TRUE, 3, rng()), HUMAN)
    index = np.array([6, 2, 7])
    np.testing.assert_array_equal(noise(TRUE[index], 3, rng(), index=index), HUMAN[index])


SUSPECTS = "index,given_label,suggested_label,score\n7,1,0,0.9\n1,1,2,0.5\n3,0,1,0.1\n"


def test_suspects_report_repairs_the_listed_labels_only(tmp_path):
    path = tmp_path / "suspects.csv"
    path.write_text(SUSPECTS)
    noise = LabelsFromFile(str(path), column="suggested_label")
    np.testing.assert_array_equal(noise(TRUE, 3, rng()), [0, 2, 2, 1, 1, 2, 0, 0])
    # sample 3 went to another split: its row is passed over
    index = np.array([0, 1, 2, 7])
    np.testing.assert_array_equal(noise(TRUE[index], 3, rng(), index=index, total=8), [0, 2, 2, 0])


def test_suspects_of_other_labels_are_noticed(tmp_path):
    # the report was made under noise; on the true labels its repair would clean what it never found
    path = tmp_path / "suspects.csv"
    noisy = Symmetric(0.5)(TRUE, 3, rng(3))
    wrong = np.flatnonzero(noisy != TRUE)
    lines = [f"{i},{noisy[i]},{TRUE[i]},0.5" for i in wrong[:2]]
    path.write_text("index,given_label,suggested_label,score\n" + "\n".join(lines))
    repair = LabelsFromFile(str(path), column="suggested_label")
    with pytest.raises(ValueError, match=r"given_label in .* for 2 of 2 samples .* Chain"):
        repair(TRUE, 3, rng(3))
    repaired = Chain([Symmetric(0.5), repair])(TRUE, 3, rng(3))
    expected = noisy.copy()
    expected[wrong[:2]] = TRUE[wrong[:2]]
    np.testing.assert_array_equal(repaired, expected)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("0\n1\n2\n", None, r"holds 3 labels, but the full training set has 8 samples"),
        ("\n".join("01201201201"), None, r"holds 11 labels, but the full training set has 8"),
        ("\n".join("01201203"), None, r"labels in .*\[7\]=3 is outside 0..2"),
        ("\n".join(["0"] * 7 + ["cat"]), None, r"is 'cat' in row 8"),
        (SUSPECTS, None, r"column=None.*Choose one of: index, given_label, suggested_label, score"),
        (SUSPECTS, "label", r"column='label' is not in"),
        (SUSPECTS + "7,1,2,0.3\n", "suggested_label", "lists 7 twice"),
        (SUSPECTS + "8,1,2,0.3\n", "suggested_label", r"holds 8. Positions in the full training set are 0..7"),
        (SUSPECTS + "-1,1,2,0.3\n", "suggested_label", r"holds -1"),
        (SUSPECTS + "4,1\n", "suggested_label", r"suggested_label .* is '' in row 5"),
        ("0,1\n1,2\n", None, "no header"),
        ("0\n1\n", "label", "no header"),
        ("", None, "is empty"),
    ],
)
def test_csv_faults_are_named(tmp_path, text, column, message):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        LabelsFromFile(str(tmp_path / "y.csv"), column=column)(TRUE, 3, rng())


def test_length_after_a_split(tmp_path):
    path = str(tmp_path / "y.npy")
    np.save(path, HUMAN)
    index = np.array([2, 8])
    with pytest.raises(ValueError, match="holds 8 labels, but the full training set has at least 9 samples"):
        LabelsFromFile(path)(TRUE[:2], 3, rng(), index=index)
    with pytest.raises(ValueError, match="holds 8 labels, but the full training set has 10 samples"):
        LabelsFromFile(path)(TRUE[:2], 3, rng(), index=index[:1].repeat(2), total=10)


def test_file_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"path='y.txt' ends in '.txt'"):
        LabelsFromFile("y.txt")
    with pytest.raises(ValueError, match=r"key='a' names a vector of a .pt file"):
        LabelsFromFile("y.csv", key="a")
    with pytest.raises(ValueError, match=r"column='a' names a column of a .csv file"):
        LabelsFromFile("y.pt", column="a")
    with pytest.raises(FileNotFoundError, match=r"one label per sample .* CIFAR-10_human.pt"):
        LabelsFromFile(str(tmp_path / "y.pt"), key="worse_label")(TRUE, 3, rng())
