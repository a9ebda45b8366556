"""benchmarks/classes.py measures what it says."""

import gc
import json
import sys

import torch


def test_the_published_form_holds_more_and_means_the_same(tmp_path, monkeypatch):
    import classes

    monkeypatch.setattr(classes, "RESULTS", tmp_path / "classes.json")
    command = "--classes 3 --batch 8 --isda 4 16 --isda-batch 64 --rounds 1 --threads 1"
    monkeypatch.setattr(sys, "argv", ["classes.py", *command.split()])
    classes.main()
    report = json.loads((tmp_path / "classes.json").read_text())
    assert [row["contender"] for row in report["lpl"]] == ["cross-entropy", "LPL, 10 steps", "LPL, 40 steps"]
    pairs, samples = report["isda"]
    assert pairs["peak_mib"] < samples["peak_mib"] / 2
    assert "| by class pairs | 64 | 4 | 16 |" in classes.table(report)
    by_pairs, by_samples = classes.isda_steps(4, 16, 64).values()
    for one, other in zip(by_pairs(), by_samples(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_held_memory_is_counted_until_it_is_freed():
    from classes import Held

    with Held() as held:
        x = torch.ones(1 << 18)
        y = x + x
        del x, y
        gc.collect()
        z = torch.ones(1 << 18)
    assert held.most == 2 << 20
    assert held.now == z.untyped_storage().nbytes()
