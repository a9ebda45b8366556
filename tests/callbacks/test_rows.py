import numpy as np
import pytest

from lightning_perturb.callbacks.records import Records, keep_epochs, write_epoch
from lightning_perturb.callbacks.rows import copy_rows, read_rows, write_row


def row(*values):
    return np.array(values, dtype=np.float16)


def test_is_a_plain_npy_file_after_each_row(tmp_path):
    path = tmp_path / "table.npy"
    for number in range(12):
        write_row(path, number, row(number, -number, 0.5), np.nan)
        table = np.load(path)
        assert table.shape == (number + 1, 3)
        assert table.dtype == np.float16
        np.testing.assert_array_equal(table[number], [number, -number, 0.5])
    assert path.stat().st_size == 128 + 12 * 3 * 2


def test_a_row_is_overwritten_not_appended(tmp_path):
    path = tmp_path / "table.npy"
    for number in (0, 1, 2, 1):
        write_row(path, number, row(number, 10 * number), np.nan)
    write_row(path, 1, row(7, 7), np.nan)
    np.testing.assert_array_equal(np.load(path), [[0, 0], [7, 7], [2, 20]])


def test_gaps_and_new_columns_are_filled(tmp_path):
    path = tmp_path / "table.npy"
    write_row(path, 2, row(1, 2), np.nan)
    write_row(path, 4, row(1, 2, 3), np.nan)
    write_row(path, 5, row(9), np.nan)
    nan = np.nan
    np.testing.assert_array_equal(
        np.load(path), [[nan] * 3, [nan] * 3, [1, 2, nan], [nan] * 3, [1, 2, 3], [9, nan, nan]]
    )


def test_a_reader_keeps_its_rows_while_the_file_grows(tmp_path):
    path = tmp_path / "table.npy"
    write_row(path, 0, row(1, 2), np.nan)
    before = read_rows(path)
    write_row(path, 1, row(3, 4), np.nan)
    write_row(path, 2, row(3, 4, 5), np.nan)
    np.testing.assert_array_equal(before, [[1, 2]])
    assert not before.flags.writeable


@pytest.mark.parametrize("rows", [0, 1, 3, 5])
@pytest.mark.parametrize("other", [True, False])
def test_copy_rows(tmp_path, rows, other):
    source = tmp_path / "a.npy"
    target = tmp_path / "b.npy" if other else source
    for number in range(3):
        write_row(source, number, row(number, number), np.nan)
    write_row(tmp_path / "b.npy", 0, row(8), np.nan)
    copy_rows(source, target, rows)
    if rows == 0:
        assert not target.exists()
        return
    assert len(np.load(target)) == min(rows, 3)
    write_row(target, min(rows, 3), row(5, 5), np.nan)
    np.testing.assert_array_equal(np.load(target)[:, 0], [*range(min(rows, 3)), 5])


def epoch(n, norm=np.nan, given=0):
    return {
        "margin": np.full(n, 1e6, dtype=np.float32), "loss": np.full(n, np.nan, dtype=np.float32),
        "told": {"perturbation_norm": np.full(n, norm, dtype=np.float32)}, "prediction": np.full(n, 3, dtype=np.int16),
        "given": np.full(n, given, dtype=np.int32),
    }  # fmt: skip


def test_epochs_without_norm_are_nan_and_huge_margins_finite(tmp_path):
    folder = tmp_path / "run" / "records"
    write_epoch(folder, 0, **epoch(4))
    assert Records.open(tmp_path / "run").perturbation_norm is None
    write_epoch(folder, 1, **epoch(4, norm=2.0))
    write_epoch(folder, 2, **epoch(5, given=-1))
    records = Records.open(folder)
    assert len(records) == 3
    assert records.margin.dtype == np.float16
    assert np.isfinite(records.margin[2]).all()
    np.testing.assert_array_equal(records.perturbation_norm[:, 0], [np.nan, 2, np.nan])
    # a label stays known where an epoch left the sample out
    np.testing.assert_array_equal(records.given, [0, 0, 0, 0, -1])


def test_keep_epochs_moves_all_files(tmp_path):
    for number in range(3):
        write_epoch(tmp_path / "old", number, **epoch(2, norm=1.0))
    assert keep_epochs(tmp_path / "old", tmp_path / "new", 2) == 2
    assert keep_epochs(tmp_path / "nothing", tmp_path / "empty", 2) == 0
    records = Records.open(tmp_path / "new")
    assert len(records.loss) == len(records.prediction) == len(records.perturbation_norm) == 2
    assert len(Records.open(tmp_path / "old")) == 3


def test_no_records(tmp_path):
    with pytest.raises(FileNotFoundError, match="callback Recorder"):
        Records.open(tmp_path)
