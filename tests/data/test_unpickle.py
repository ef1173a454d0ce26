import collections
import os
import pickle

import numpy as np
import pytest
from feature_layouts import dump, dump_python2

from affectjax.data.raw.unpickle import load
from affectjax.errors import InputError


class Foreign:
    pass


class Shell:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_survive_every_protocol(tmp_path, protocol):
    content = {
        "f": np.arange(6, dtype=np.float64).reshape(2, 3),
        "half": np.asfortranarray(np.eye(3, dtype=np.float16)),
        "scalar": np.float32(2.5),
        "names": np.array(["a", None, b"c"], object),
        "bytes": np.array([b"x", b"yz"]),
        "more": [1, (2.0, "three"), {"four"}, b"five", None, True, 2**80],
        "ordered": collections.OrderedDict(a=1),
    }
    loaded = load(dump(tmp_path / "a.pkl", content, protocol))
    for key in ("f", "half", "bytes", "names"):
        assert loaded[key].dtype == content[key].dtype
        np.testing.assert_array_equal(loaded[key], content[key])
    assert loaded["scalar"] == np.float32(2.5)
    assert loaded["more"] == content["more"]
    assert loaded["ordered"] == {"a": 1}


def test_code_is_refused_by_name_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    path = dump(tmp_path / "evil.pkl", {"train": Shell(f"touch {mark}")})
    with pytest.raises(InputError, match=r"evil\.pkl.*(posix|nt)\.system"):
        load(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy", "core.multiarray.scalar"),
        ("numpy.f2py.crackfortran", "getlincoef"),
        ("torch._utils", "_rebuild_tensor_v2"),
    ],
)
def test_other_names_are_refused(tmp_path, module, name):
    def short(text):
        return b"\x8c" + bytes([len(text)]) + text.encode()

    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + short(module) + short(name) + b"\x93.")
    with pytest.raises(InputError, match=f"asks for {module}.{name}"):
        load(path)


def test_a_class_of_the_author_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"test_unpickle\.Foreign"):
        load(dump(tmp_path / "a.pkl", Foreign()))


def test_codec_registry_is_out_of_reach(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.")
    with pytest.raises(InputError, match="bz2"):
        load(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated(tmp_path, share):
    whole = pickle.dumps({"train": np.ones((50, 50))})
    path = tmp_path / "half.pkl"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"half\.pkl: not a whole pickle"):
        load(path)


def test_not_a_pickle_missing_and_folder(tmp_path):
    (tmp_path / "a.pkl").write_text("id,split,label\n")
    for path, words in (
        (tmp_path / "a.pkl", "not a whole pickle"),
        (tmp_path / "none.pkl", "no such file"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            load(path)


def test_python2(tmp_path):
    array = np.arange(300, dtype=np.float64).reshape(3, 100)
    path = dump_python2(
        tmp_path / "old.pkl", {b"train": {b"audio": array, "id": ["v\xe9", b"w"]}, "n": [1, 2.5]}
    )
    assert b"numpy.core" in path.read_bytes() and b"X\x05" not in path.read_bytes()
    loaded = load(path)
    np.testing.assert_array_equal(loaded["train"]["audio"], array)
    assert loaded["train"]["id"] == ["v\xe9", "w"]
    assert loaded["n"] == [1, 2.5]


def test_bytes_keys_of_python3_become_text(tmp_path):
    assert load(dump(tmp_path / "a.pkl", {b"a": [{b"b": b"c"}]})) == {"a": [{"b": b"c"}]}
