"""What a stage was made from: a manifest beside its results, compared with what a run asks for before they are used."""

import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssenet_jax.artifacts import flatten, read_json, write_json
from ssenet_jax.config import RUNTIME_KEYS

VERSION = 3  # of the file, not of the package
_ABSENT = object()
_NAMED = 3  # ids in a message


class MadeFrom(NamedTuple):
    """The data of a stage.

    Attributes:
        identity: what decides a result beside the settings: the data set, its classes, its lists, the content of weight
            files; as `Source.identity`, nested as it likes.
        images: by id, a short text that changes with the photo, its labels or, where a stage learns from it, its mask;
            as `Source.fingerprints`.
    """

    identity: Mapping[str, Any] = {}
    images: Mapping[str, str] = {}


NOTHING = MadeFrom()


class Manifest(NamedTuple):
    """A manifest as it was read."""

    complete: bool
    settings: Mapping[str, Any]
    made_from: MadeFrom


def result_settings(config: Mapping, sections: tuple[str, ...]) -> dict[str, Any]:
    """The settings in ``sections`` that decide a result, without those that only decide how it is computed."""
    runtime = [re.compile(pattern) for pattern in RUNTIME_KEYS]
    chosen = flatten({key: config[key] for key in sections})
    return {key: value for key, value in chosen.items() if not any(pattern.fullmatch(key) for pattern in runtime)}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A short name of a group of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache  # asked for before and after a stage, of files of gigabytes
def content_hash(path: Path) -> str:
    """The content of a file, or of all files in a folder, as a short text."""
    total = hashlib.sha256()
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def write_manifest(path: Path, settings: Mapping[str, Any], *, complete: bool, made_from: MadeFrom = NOTHING) -> None:
    """Writes what a stage is made with and from; before its first result, and again when it has all."""
    write_json(
        path,
        {
            "version": VERSION,
            "complete": complete,
            "config_hash": settings_hash(settings),
            "settings": dict(settings),
            "made_from": flatten(made_from.identity),
            "images": dict(made_from.images),
        },
    )


def read_manifest(path: Path) -> Manifest | None:
    """A manifest, or None when the stage was not begun.

    Raises:
        ValueError: the file is damaged, or was written by another version of this package.
    """
    if not path.exists():
        return None
    held = read_json(path)
    remedy = "delete it and run the stage again: what it has written is made again where it is missing"
    if not isinstance(held, dict):
        raise ValueError(f"{path} is no manifest; {remedy}")
    if held.get("version") != VERSION:
        raise ValueError(f"{path} was written by another version of this package; use another --workdir")
    kinds = {"complete": bool, "settings": dict, "made_from": dict, "images": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(held.get(key), kind)]
    if wrong:
        raise ValueError(f"{path} has no valid entry {wrong[0]!r}; {remedy}")
    return Manifest(held["complete"], held["settings"], MadeFrom(held["made_from"], held["images"]))


def check_manifest(
    path: Path, settings: Mapping[str, Any], *, stage: str, made_from: MadeFrom | None = None, grows: bool = False
) -> bool:
    """Compares the manifest of a stage with what is asked for.

    Args:
        path: of the manifest, two folders below the workdir.
        settings: those that decide the stage's result.
        stage: its name.
        made_from: the data as they are now; None compares none.
        grows: the stage makes one result an image, so images may come and go; else they must be the same.

    Returns:
        Whether the stage has been completed under these settings; False when it was not begun or not finished.

    Raises:
        ValueError: the files of this stage were made with other settings or from other data; what differs is named.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return False
    holds = f"{path.parent.parent} holds results of {stage}"
    _compare_settings(holds, manifest.settings, settings)
    if made_from is not None:
        _compare_data(holds, manifest.made_from, made_from, grows=grows)
    return manifest.complete


def changed_images(path: Path, images: Mapping[str, str]) -> list[str]:
    """The images of a stage's manifest that are no more what they were; those that came or went are not counted.

    Args:
        path: of the manifest.
        images: as `MadeFrom.images`, as they are now.
    """
    manifest = read_manifest(path)
    return [] if manifest is None else _changed(manifest.made_from.images, images)


def _changed(made: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [image for image, state in made.items() if now.get(image, state) != state]


def differing(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The first key in which two groups of settings differ; "" when they are equal."""
    keys = [key for key in sorted(made.keys() | asked.keys()) if made.get(key, _ABSENT) != asked.get(key, _ABSENT)]
    # a key that only one side has follows from another one that differs, if there is one
    return min(keys, key=lambda key: (key in made) + (key in asked) == 1, default="")


def _compare_settings(holds: str, made: Mapping, asked: Mapping) -> None:
    if key := differing(made, asked):
        if key not in made or key not in asked:
            side, value = ("with", made[key]) if key in made else ("without", asked[key])
            raise ValueError(
                f"{holds} from a version of this package {side} the key {key} (={value!r}); use another --workdir"
            )
        raise ValueError(
            f"{holds} with {key}={made[key]!r}, but the config says {asked[key]!r}; use another --workdir, which takes "
            "the rest from this one with --from, or set the key back"
        )


def _compare_data(holds: str, made: MadeFrom, now: MadeFrom, *, grows: bool) -> None:
    was, is_now = made.identity, flatten(now.identity)
    keys = [key for key in sorted(was.keys() | is_now.keys()) if was.get(key) != is_now.get(key)]
    if grows:  # a split may come whole, when it is given masks, and go
        both = _splits(was) & _splits(is_now)
        keys = [key for key in keys if "." not in key or key.partition(".")[0] in both]
    lists = [key for key in keys if "lists" in key.split(".")]
    if keys == ["reviewed"]:
        raise ValueError(
            f"{holds} from what was reviewed before; use another --workdir, which takes the rest from this one with "
            "--from"
        )
    for key in [key for key in keys if key not in lists]:
        told = f"{key} was {_short(was.get(key))} and is {_short(is_now.get(key))}"
        raise ValueError(f"{holds} from other data: {told}; use another --workdir, or set it back")
    changed = _changed(made.images, now.images)
    changes: dict[str, Collection[str]] = {"changed since": changed}
    if not grows:
        changes |= {"were added": now.images.keys() - made.images, "were removed": made.images.keys() - now.images}
    found = {what: images for what, images in changes.items() if images}
    counted = [f"{len(images)} {what} ({_first(images)})" for what, images in found.items()]
    if counted:
        told, remedy = ", ".join(counted), "take them out again" if list(found) == ["were added"] else "put them back"
        raise ValueError(f"{holds} from other images: {told}; use another --workdir, or {remedy}")
    if lists and not grows:
        raise ValueError(f"{holds} from another list: {lists[0]} has changed; use another --workdir, or put it back")


def _splits(identity: Iterable[str]) -> set[str]:
    return {key.partition(".")[0] for key in identity if "." in key}


def _first(images: Iterable[str]) -> str:
    named = sorted(images)
    return ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
