"""Annotation files in the layout of MS-COCO, which iNaturalist 2017 has too; read without pycocotools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says.

    Attributes:
        path: The file.
        images: File name by image id, in the order of the file.
        annotations: Annotations as they are, without outlines.
        classes: Place among the sorted category ids, by category id.
        names: Names of the categories in that order.
    """

    path: Path
    images: dict[int, str]
    annotations: list[dict[str, Any]]
    classes: dict[int, int]
    names: list[str]


def read_coco(path: Path, categories: int, remedy: str) -> CocoFile:
    """Reads an annotation file.

    Args:
        path: The file: a JSON object with ``images``, ``annotations`` and ``categories``.
        categories: How many categories it must have.
        remedy: What to do where there is no such file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another layout, or has another number of categories.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {remedy}")
    try:
        with path.open(encoding="utf-8") as file:
            # outlines are most of the file, and would be most of the memory
            tree = json.load(file, object_hook=_without_outline)
        images = {int(image["id"]): str(image["file_name"]) for image in tree["images"]}
        annotations = [{**note, "category_id": int(note["category_id"])} for note in tree["annotations"]]
        named = {int(category["id"]): str(category["name"]) for category in tree["categories"]}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no annotation file of images, annotations and categories ({type(error).__name__}: {error}). "
            f"{remedy}"
        ) from error
    if len(named) != categories:
        raise ValueError(f"{path} has {len(named)} categories where {categories} were published. {remedy}")
    order = {category: place for place, category in enumerate(sorted(named))}
    strange = next((note for note in annotations if note["category_id"] not in order), None)
    if strange is not None or any(int(note["image_id"]) not in images for note in annotations):
        what = f"category {strange['category_id']}" if strange is not None else "an image"
        raise ValueError(f"{path} annotates {what} that it does not list. {remedy}")
    return CocoFile(path, images, annotations, order, [named[category] for category in sorted(named)])


def _without_outline(item: dict[str, Any]) -> dict[str, Any]:
    item.pop("segmentation", None)
    return item
