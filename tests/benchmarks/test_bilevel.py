"""benchmarks/bilevel.py writes what it measured."""

import json
import sys

import pytest


@pytest.fixture
def bilevel(tmp_path, monkeypatch):
    import bilevel
    import readme

    monkeypatch.setattr(bilevel, "RESULTS", tmp_path)
    page = tmp_path / "README.md"
    page.write_text("<!-- begin: small -->\n<!-- end: small -->\n")
    monkeypatch.setattr(bilevel, "write_section", lambda name, text: readme.write_section(name, text, page))
    return bilevel


def test_the_table_has_every_contender_beside_higher(bilevel, tmp_path, monkeypatch):
    command = "--depth 8 --batch 4 --rounds 1 --threads 1 --no-memory --contenders forward higher --name small --write"
    monkeypatch.setattr(sys, "argv", ["bilevel.py", *command.split()])
    bilevel.main()
    about = json.loads((tmp_path / "small.json").read_text())
    assert [row["contender"] for row in about["rows"]] == ["plain", "forward", "higher"]
    assert about["command"].endswith(command)
    rows = {row["contender"]: row for row in about["rows"]}
    share = rows["forward"]["plain_steps"] / rows["higher"]["plain_steps"]
    (line,) = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| forward")]
    assert f"| {share:.2f} |" in line
    assert float(rows["forward"]["relative_error"]) < 1e-2
