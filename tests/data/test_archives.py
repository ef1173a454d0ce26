import contextlib
import io
import zipfile

import numpy as np
import pytest

from affectjax.data import archives
from affectjax.data.batches.dataset import load_statistics
from affectjax.errors import InputError
from affectjax.reports import embeddings


def head(shape, dtype="<f4", version=(1, 0)):
    """Returns what an npy of that shape begins with, and none of its values."""
    file = io.BytesIO()
    said = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, said)
    return file.getvalue().replace(b"NUMPY\x01\x00", b"NUMPY" + bytes(version))


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    arrays = {"a": np.eye(3, dtype=np.float16), "b/c": np.array(["x", "yz"]), "d": np.zeros((0, 2))}
    save(tmp_path / "a.npz", **arrays)
    found = archives.read(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


def test_the_size_is_checked_before_anything_is_read(tmp_path):
    huge = archive(tmp_path / "a.npz", **{"text.npy": head((10**6, 400, 100))})
    with pytest.raises(InputError, match=r"a\.npz: text: float32 \[1000000, 400.*152,588 MiB"):
        archives.read(huge)
    np.savez(tmp_path / "b.npz", a=np.zeros(2**17), b=np.zeros(2**17))
    assert len(archives.read(tmp_path / "b.npz", largest_mib=2)) == 2
    with pytest.raises(InputError, match=r"b\.npz: b: would take 2 MiB .* largest_mib"):
        archives.read(tmp_path / "b.npz", largest_mib=1.5)


def test_compressed_zeros_count_as_what_they_become(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**20))
    assert (tmp_path / "a.npz").stat().st_size < 2**14
    with pytest.raises(InputError, match="would take 8 MiB"):
        archives.read(tmp_path / "a.npz", largest_mib=4)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.npy": head((3,), "|O") + b"x" * 99}, "a is an array of Python objects"),
        ({"a.npy": head((3,), [("b", "|O")]) + b"x" * 99}, "a is an array of Python objects"),
        ({"a.npy": head((10,)) + b"x"}, "is not a NumPy archive"),
        ({"a.npy": b"no npy"}, "is not a NumPy archive"),
        ({"note.txt": b"a" * 2**20}, "is not a NumPy archive"),
        ({"a.npy": head((1,), version=(2, 0)) + b"x" * 4}, "is not a NumPy archive"),
        ({"a.npy": head((1,), version=(9, 0)) + b"x" * 4}, "version"),
    ],
)
def test_other_content_is_refused(tmp_path, members, words):
    with pytest.raises(InputError, match=words):
        archives.read(archive(tmp_path / "a.npz", **members))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04", b"\x80\x04N."])
def test_no_archive(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: is not a NumPy archive of plain arrays"):
        archives.read(tmp_path / "a.npz")


def test_one_array(tmp_path):
    np.save(tmp_path / "a.npy", np.int64(3))
    assert archives.array(tmp_path / "a.npy", 1).item() == 3
    (tmp_path / "b.npy").write_bytes(head((10**9,)))
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    for name, words in (("b", "3,815 MiB"), ("c", "Python objects"), ("d", "No such file")):
        with pytest.raises(InputError, match=words):
            archives.array(tmp_path / f"{name}.npy", 1)


def test_what_a_run_left_is_read_the_same_way(tmp_path):
    np.savez(tmp_path / "features.npz", **{"text/mean": np.array([{}])})
    for read in (load_statistics, lambda path: embeddings.load(path.parent)):
        with pytest.raises(InputError, match="text/mean is an array of Python objects"):
            read(tmp_path / "features.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_is_an_input_error(tmp_path, save):
    save(tmp_path / "a.npz", a=np.arange(200.0))
    whole = (tmp_path / "a.npz").read_bytes()
    for at in range(0, len(whole), 23):
        for change in (b"\xff" * 8, b"\0" * 3, b"(\n"):
            (tmp_path / "a.npz").write_bytes(whole[:at] + change + whole[at + len(change) :])
            with contextlib.suppress(InputError):
                archives.read(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(head((3,)).replace(b"(3,)", b"(3,("))
    with pytest.raises(InputError, match=r"a\.npy: is not a NumPy file of a plain array"):
        archives.array(tmp_path / "a.npy", 1)
