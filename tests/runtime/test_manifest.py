"""Checksums: what was changed, cut, removed or half replaced is found, and nothing else is."""

import os
import shutil

import pytest
from absl import logging

from affectjax.errors import InputError
from affectjax.runtime import manifest

FILES = {"a.json": b"one", "deep/b.npz": b"two"}


@pytest.fixture
def folder(tmp_path):
    manifest.write(tmp_path / "run", FILES)
    return tmp_path / "run"


def check(folder, *names):
    manifest.check(folder, names or tuple(FILES), "do so")


def test_what_was_written_is_sound(folder):
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    check(folder, *FILES, "deep/", "never/")
    assert manifest.damage(folder) == ""


def test_a_later_file_leaves_the_others_sound(folder):
    manifest.write(folder, {"a.json": b"new", "c": b""})
    check(folder, *FILES, "c")
    assert (folder / "a.json").read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"two!", b"", b"twO", b"\0\0\0"])
def test_a_changed_file_is_named(folder, content):
    (folder / "deep" / "b.npz").write_bytes(content)
    check(folder, "a.json")
    for name in ("deep/b.npz", "deep/"):
        with pytest.raises(InputError, match=r"deep/b\.npz is damaged: .*written; do so"):
            check(folder, name)
    assert "deep/b.npz is damaged" in manifest.damage(folder)


def test_a_missing_file_is_named(folder):
    (folder / "a.json").unlink()
    with pytest.raises(InputError, match=r"a\.json is missing; do so"):
        check(folder)
    assert "a.json is missing" in manifest.damage(folder)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_write_that_is_killed_leaves_files_that_are_whole(folder, monkeypatch, call):
    """Two of the manifest, and one of each file between them, in that order."""
    replace, calls = os.replace, []

    def counted(*paths):
        calls.append(paths)
        if len(calls) == call:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", counted)
    with pytest.raises(KeyboardInterrupt):
        manifest.write(folder, {"a.json": b"other", "deep/b.npz": b"others"})
    check(folder)
    monkeypatch.undo()
    manifest.write(folder, FILES)
    check(folder)
    (folder / "a.json").write_bytes(b"other")
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        check(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a.json": 3}', '{"a.json": [["x", 1]]}'])
def test_a_damaged_manifest(folder, content):
    (folder / manifest.FILE).write_text(content)
    with pytest.raises(InputError, match=r"checksums\.json is damaged .*; remove it to read"):
        check(folder)
    manifest.write(folder, FILES)
    check(folder)


def test_files_without_checksums_are_read_with_a_warning(folder, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    (folder / manifest.FILE).unlink()
    for _ in range(2):
        check(folder, "a.json")
    assert said == [f"no checksum of {folder / 'a.json'} is known: it is read unchecked"]


def test_a_whole_folder(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "z").write_bytes(b"1" * 100)
    manifest.take(tmp_path / "x")
    moved = shutil.move(tmp_path / "x", tmp_path / "elsewhere")
    assert manifest.damage(moved) == ""
    (moved / "y" / "z").write_bytes(b"1" * 99 + b"2")
    assert manifest.damage(moved).startswith(f"{moved / 'y' / 'z'} is damaged")
