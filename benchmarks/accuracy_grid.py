"""A grid file, read and expanded into runs: data x network x method x seed."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

Spec = dict[str, Any]

_KEYS = {
    "title", "include", "num_classes", "data", "nets", "methods", "trainer", "seeds", "test_every", "baseline", "paper",
    "metrics", "chosen_by", "attack",
}  # fmt: skip
# arguments that take a maker of objects instead of an object
_MAKERS = ("optimizer", "lr_scheduler", "meta_optimizer", "second_scheduler")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        column: Where its result stands in the table: data, network or both.
        row: The method with its setting.
        method: The method alone.
        setting: What distinguishes this row from others of the method.
        config: Everything that the result depends on; names are no part of it.
    """

    column: str
    row: str
    method: str
    setting: Spec
    config: Spec

    @property
    def seed(self) -> int:
        """Seed of data, weights and draws."""
        return int(self.config["seed"])

    @cached_property
    def key(self) -> str:
        """Names the configuration: runs of other grids with the same configuration are the same run."""
        text = json.dumps(self.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """What ``--only`` is matched with."""
        return f"{self.row} / {self.column} / seed {self.seed}"

    @property
    def file_name(self) -> str:
        """A readable name that ends with the key."""
        return f"{slug(self.column)}-{slug(self.row)}-s{self.seed}-{self.key}.json"


@dataclass(frozen=True)
class Grid:
    """What a grid file says.

    Attributes:
        name: Name of the file.
        title: Heading of its table.
        columns: Names of the table's columns.
        rows: Names of the table's rows, with settings that are searched.
        runs: All runs, seed by seed, so that a grid that was stopped early has whole tables.
        baseline: The row that must memorise the noise for the table to say anything.
        metrics: The test numbers of which tables are made, the main one first.
        chosen_by: The validation number that chooses an epoch for a further table; None for no such table.
        papers: The paper's numbers by metric, and then by (row, column), as printed.
        source: Where they stand.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[str]
    runs: list[Run]
    baseline: str | None = None
    metrics: tuple[str, ...] = ("test/acc",)
    chosen_by: str | None = None
    papers: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    source: str = ""

    @property
    def paper(self) -> dict[tuple[str, str], str]:
        """The paper's numbers of the main metric by (row, column)."""
        return self.papers.get(self.metrics[0], {})


def read_grid(path: str | Path) -> Grid:
    """Reads a grid file and the files that it includes.

    Args:
        path: The YAML file. ``include`` names files beside it that it is merged over, key by key. Under
            ``data.columns``, ``nets`` and ``methods.rows`` a null takes an entry away that an included file has;
            ``methods.only`` names the rows that are kept, in their order. A row's ``trainer`` goes over the grid's, its
            ``net`` over every network, and its ``data`` over every column's. ``attack`` is what the last epoch is
            tested under, too, as ``test/robust_acc``. ``chosen_by`` names the validation number that chooses an epoch.
            ``paper.metrics`` names the metrics that the paper prints, if not all; a ``-`` among its numbers stands for
            none.

    Raises:
        ValueError: If a key is unknown or missing, or names something that the grid does not have.
    """
    path = Path(path)
    tree = _load(path)
    unknown = sorted(set(tree) - _KEYS)
    if unknown:
        raise ValueError(f"{path}: the key {unknown[0]!r} is unknown. Choose from: {', '.join(sorted(_KEYS))}.")
    missing = sorted({"num_classes", "data", "nets", "methods", "trainer", "seeds"} - set(tree))
    if missing:
        raise ValueError(f"{path}: the key {missing[0]!r} is missing.")
    columns = list(_columns(tree))
    rows = list(_rows(tree, path))
    runs = [
        Run(column, row, method, setting, _config(tree, data, net, spec, by_data.get(data_name, {}), own, seed))
        for seed in tree["seeds"]
        for column, data_name, data, net in columns
        for row, method, setting, spec, by_data, own in rows
    ]
    metrics = tuple(tree.get("metrics", ["test/acc"]))
    grid = Grid(
        name=path.stem,
        title=tree.get("title", path.stem),
        columns=[column[0] for column in columns],
        rows=[row[0] for row in rows],
        runs=runs,
        baseline=tree.get("baseline"),
        metrics=metrics,
        chosen_by=_validation_number(tree.get("chosen_by"), path),
        **_paper(tree.get("paper"), [column[0] for column in columns], metrics, path),
    )
    for row in {row for row, _ in grid.paper} | ({grid.baseline} if grid.baseline else set()):
        if row not in grid.rows:
            raise ValueError(f"{path}: {row!r} is no row of the grid. Its rows: {', '.join(grid.rows)}.")
    return grid


def merge(under: Any, over: Any) -> Any:
    """Lays a configuration over another; another class takes none of the old class' arguments."""
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    if "class_path" in over and over["class_path"] != under.get("class_path", over["class_path"]):
        return dict(over)
    merged = dict(under)
    for name, value in over.items():
        merged[name] = merge(under[name], value) if name in under else value
    return merged


# expanding ------------------------------------------------------------------------------------------------------------


def _load(path: Path) -> Spec:
    tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no mapping. See benchmarks/README.md for what a grid file names.")
    includes = tree.pop("include", [])
    under: Spec = {}
    for include in [includes] if isinstance(includes, str) else includes:
        under = merge(under, _load(path.parent / include))
    return merge(under, tree)  # type: ignore[no-any-return]


def _entries(tree: Mapping[str, Any]) -> dict[str, Spec]:
    return {str(name): entry for name, entry in tree.items() if entry is not None}


def _columns(tree: Spec) -> Iterator[tuple[str, str, Spec, Spec]]:
    base = tree["data"].get("base", {})
    datas, nets = _entries(tree["data"]["columns"]), _entries(tree["nets"])
    for net_name, net in nets.items():
        for data_name, data in datas.items():
            names = [net_name] * (len(nets) > 1) + [data_name] * (len(datas) > 1 or len(nets) == 1)
            yield ", ".join(names), data_name, merge(base, data), net


def _rows(tree: Spec, path: Path) -> Iterator[tuple[str, str, Spec, Spec, dict[str, Spec], Spec]]:
    base = tree["methods"].get("base", {})
    entries = _entries(tree["methods"]["rows"])
    only = tree["methods"].get("only", list(entries))
    for name in only:
        if name not in entries:
            raise ValueError(f"{path}: methods.only names {name!r}, which is no row. Rows: {', '.join(entries)}.")
        spec = dict(entries[name])
        search, by_data = spec.pop("search", None) or {}, spec.pop("by_data", None) or {}
        # a row may train longer than the others, with another option of the networks, or on other batches
        own = {part: spec.pop(part, None) or {} for part in ("trainer", "net", "data")}
        for data_name in by_data:
            # columns that this grid takes away may be named, since several grids share their rows
            if data_name not in tree["data"]["columns"]:
                raise ValueError(f"{path}: by_data of {name!r} names {data_name!r}, which is no column of the data.")
        # the row goes over the base, whose arguments all methods share
        spec = {"class_path": spec["class_path"], "init_args": merge(base, spec.get("init_args", {}))}
        for values in itertools.product(*search.values()):
            setting = dict(zip(search, values, strict=True))
            row = " ".join([name, *(f"{key}={value}" for key, value in setting.items())])
            yield row, name, setting, merge(spec, {"init_args": setting}), by_data, own


def _config(tree: Spec, data: Spec, net: Spec, method: Spec, by_data: Spec, own: Spec, seed: int) -> Spec:
    net = dict(net)
    # a network may come with its own training recipe
    recipe, trainer = net.pop("method", {}), net.pop("trainer", {})
    method = merge(merge(method, {"init_args": recipe}), {"init_args": by_data})
    # runs without an attack keep their names
    attack = {"attack": tree["attack"]} if tree.get("attack") else {}
    return {
        "num_classes": tree["num_classes"],
        "data": merge(data, own["data"]),
        "net": merge(net, own["net"]),
        "method": method,
        "trainer": merge(merge(tree["trainer"], trainer), own["trainer"]),
        "test_every": tree.get("test_every", 1),
        "seed": seed,
        **attack,
    }


def _validation_number(name: str | None, path: Path) -> str | None:
    if name is not None and not name.startswith("val/"):
        raise ValueError(f"{path}: chosen_by={name!r} is no validation number, and the test set has no say. Use val/.")
    return name


def _paper(paper: Spec | None, columns: list[str], metrics: tuple[str, ...], path: Path) -> dict[str, Any]:
    if paper is None:
        return {}
    printed = tuple(paper.get("metrics", metrics))
    for metric in printed:
        if metric not in metrics:
            raise ValueError(f"{path}: paper.metrics names {metric!r}, which is no metric of the grid: {metrics}.")
    # the metrics of a column stand side by side
    places = [(column, metric) for column in columns for metric in printed]
    cells: dict[str, dict[tuple[str, str], str]] = {metric: {} for metric in printed}
    for row, text in paper["rows"].items():
        values = str(text).split()
        if len(values) != len(places):
            of = f" with {len(printed)} metrics each" if len(printed) > 1 else ""
            raise ValueError(
                f"{path}: the paper's row {row!r} has {len(values)} numbers for {len(columns)} columns{of}."
            )
        for (column, metric), value in zip(places, values, strict=True):
            if value != "-":
                cells[metric][row, column] = value
    return {"papers": cells, "source": paper["source"]}


def slug(text: str) -> str:
    """A name for files."""
    return re.sub(r"[^a-z0-9.=]+", "_", text.lower()).strip("_")


# building -------------------------------------------------------------------------------------------------------------


def build(spec: Any) -> Any:
    """Objects of a configuration: every mapping with a ``class_path`` becomes an instance of that class."""
    if isinstance(spec, list):
        return [build(item) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    if "class_path" not in spec:
        return {name: build(value) for name, value in spec.items()}
    unknown = set(spec) - {"class_path", "init_args"}
    if unknown:
        raise ValueError(f"{spec['class_path']}: {sorted(unknown)[0]!r} stands beside class_path. Put it in init_args.")
    return _maker(spec)()


def _maker(spec: Mapping[str, Any]) -> Any:
    module, _, name = spec["class_path"].rpartition(".")
    arguments = {
        key: _maker(value) if key in _MAKERS and value is not None else build(value)
        for key, value in spec.get("init_args", {}).items()
    }
    return partial(getattr(importlib.import_module(module), name), **arguments)


def build_data(config: Spec) -> Any:
    """The data module of a run; nothing is read."""
    return build(merge(config["data"], {"init_args": {"seed": config["seed"]}}))


def build_method(config: Spec) -> Any:
    """The method of a run with its network."""
    classes = {"num_classes": config["num_classes"]}
    net = merge(config["net"], {"init_args": classes})
    return build(merge(config["method"], {"init_args": {**classes, "net": net}}))


def with_environment(value: Any) -> Any:
    """Puts environment variables (``${NAME}``) in place.

    Raises:
        ValueError: If one is not set.
    """
    if isinstance(value, Mapping):
        return {key: with_environment(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_environment(item) for item in value]
    if not isinstance(value, str):
        return value
    text = os.path.expandvars(value)
    missing = re.search(r"\$\{(\w+)\}", text)
    if missing:
        raise ValueError(
            f"The environment variable {missing[1]} is not set. Set it to the folder of the data "
            "(benchmarks/README.md says what must be there)."
        )
    return text
