import collections
import os
import pickle
import tracemalloc

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


ARRAYS = {
    "turned": np.arange(6.0).reshape(2, 3).T,
    "axes": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
    "other byte order": np.arange(4, dtype=">i4"),
    "none": np.zeros((0, 5), np.float32),
    "no axis": np.array(3, np.uint8),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "text": np.array(["a", "\u00e9b"]),
    "objects": np.array([[1, "a"], [None, 2.5]], object),
    "objects by column": np.array([["v1", 0, 1], ["v2", 5, 6]], object, order="F"),
    "objects turned": np.array(list("abcdefghijkl"), object).reshape(2, 3, 2).T,
    "no objects": np.array([], object),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_every_kind_of_array(tmp_path, name, protocol):
    loaded = load(dump(tmp_path / "a.pkl", {"x": ARRAYS[name]}, protocol))["x"]
    assert loaded.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(loaded, ARRAYS[name])


@pytest.mark.parametrize("protocol", range(6))
def test_values_of_no_length_and_scalars(tmp_path, protocol):
    content = [
        b"",
        "",
        bytearray(),
        bytearray(b"a"),
        set(),
        frozenset({1}),
        1j,
        -1,
        2**31,
        -(2**70),
    ]
    content += [np.float64(2.5), np.str_("a"), np.str_(""), np.bytes_(b"b"), np.bool_(True)]
    loaded = load(dump(tmp_path / "a.pkl", content, protocol))
    assert loaded == content
    assert list(map(type, loaded)) == list(map(type, content))


class Called:
    """Is pickled as a call, and maybe a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float32(0).__reduce__()[0]


def array_of(dtype, raw, shape=(4,)):
    return Called(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


WRONG = {
    "objects without their flag": array_of(
        Called(np.dtype, ("O8", False, True), (3, "|", None, None, None, 8, 8, 0)), b"A" * 32
    ),
    "objects of bytes": array_of(np.dtype(object), b"A" * 32),
    "numbers of a list": array_of(np.dtype("f8"), [1.0, 2.0, 3.0, 4.0]),
    "too few bytes": array_of(np.dtype("f8"), b"A" * 31),
    "too few objects": array_of(np.dtype(object), [1]),
    "a negative side": array_of(np.dtype("f8"), b"", (-1, 0)),
    "values without a byte": array_of(np.dtype("S0"), b"", (2**50,)),
    "an object of bytes": Called(SCALAR, (np.dtype(object), b"A" * 8)),
    "records": np.zeros(2, [("a", "f4")]),
    "times": np.zeros(2, "M8[s]"),
    "another size": array_of(
        Called(np.dtype, ("f4", False, True), (3, "<", None, None, None, 8, 8, 0)), b"A" * 32
    ),
    "an array called": Called(np.ndarray, ((4,),)),
    "an array itself": np.ndarray,
    "a dtype itself": np.dtype("f4"),
    "a long bytearray": Called(bytearray, (2**60,)),
    "a state of a list": Called(list, (), {"a": 1}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_no_array_is_built_of_what_does_not_fit(tmp_path, wrong):
    with pytest.raises(InputError, match=r"a\.pkl: refused, the pickle asks for"):
        load(dump(tmp_path / "a.pkl", {"x": wrong}, 2))


def doubled(value, levels=40):
    for _ in range(levels):
        value = type(value)([value, value])
    return value


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def test_values_that_are_shared_count_each_time(tmp_path):
    objects = np.empty(1, object)
    objects[0] = doubled([])
    for content in (doubled([]), {"a": doubled((1,))}, objects):
        path = dump(tmp_path / "a.pkl", content)
        assert path.stat().st_size < 3000
        with pytest.raises(InputError, match="MiB of memory; allowed: 16384, which largest_mib"):
            load(path)
    array = np.zeros(2**17)
    path = dump(tmp_path / "b.pkl", [array] * 3)
    assert len(load(path, largest_mib=4)) == 3
    with pytest.raises(InputError, match="largest_mib"):
        load(path, largest_mib=2)


def test_what_is_no_key(tmp_path):
    mark, memo = b"(", b"]q\x00"  # a key is made by hand: to hash it would take for ever
    key = b"K\x01\x85" + b"2\x86" * 60
    for path, content in (
        (tmp_path / "a.pkl", b"\x80\x02}" + key + b"K\x01s."),
        (tmp_path / "b.pkl", b"\x80\x04\x8f" + mark + key + b"\x90."),
        (tmp_path / "c.pkl", b"\x80\x02}" + memo + b"K\x01s."),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"refused, .* a key, or in a set"):
            load(path)


@pytest.mark.parametrize("protocol", range(6))
def test_tuples_and_frozen_sets_as_keys_and_in_sets(tmp_path, protocol):
    content = {
        "keys": {(1, (2, 3)): 1, ("a", ((b"b",), None)): 2, frozenset({1, (2,)}): 3, (): 4},
        "set": {frozenset({1, 2}), (frozenset(), (1.5,)), "c"},
    }
    assert load(dump(tmp_path / "a.pkl", content, protocol)) == content


def test_texts_in_keys_count(tmp_path):
    text = "a" * 2**18
    for content in ({(1, (text,))}, {((text,),): 1}):
        path = dump(tmp_path / "a.pkl", [content] * 8)
        assert load(path, largest_mib=3) == [content] * 8
        with pytest.raises(InputError, match="largest_mib"):
            load(path, largest_mib=1)


def test_long_keys_are_refused(tmp_path):
    assert load(dump(tmp_path / "a.pkl", {(0,) * 100: 1})) == {(0,) * 100: 1}
    for content in ({(0,) * 101: 1}, {frozenset(range(101))}):
        with pytest.raises(InputError, match=r"refused, .* more than 100 values in a key"):
            load(dump(tmp_path / "a.pkl", content))


def test_containers_that_hold_themselves(tmp_path):
    own, table = [], {}
    own.append(own)
    table["a"] = [table]
    for content in (own, table):
        with pytest.raises(InputError, match="hold themselves"):
            load(dump(tmp_path / "a.pkl", content))


def test_depth(tmp_path):
    assert load(dump(tmp_path / "a.pkl", deep(90))) == deep(90)
    many = b"\x80\x02" + b"(" * 50000 + b"t" * 50000 + b"."
    (tmp_path / "b.pkl").write_bytes(many)
    # At first sight each list is less than 100 deep, and only together they are more.
    lists = [deep(60)]
    lists.append([*deep(60), lists[0]])
    joined = lists[0]
    for _ in range(60):
        joined = [joined]
    for path in (tmp_path / "b.pkl", dump(tmp_path / "c.pkl", [*lists, joined])):
        with pytest.raises(InputError, match="more than 100 in each other"):
            load(path)


def test_a_text_that_is_encoded_again_and_again(tmp_path):
    text = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + text + b"q\x00" + again * 20 + b".")
    with pytest.raises(InputError, match="largest_mib"):
        load(tmp_path / "a.pkl", largest_mib=10)


SHARED = b"(" + b"N" * 2000 + b"t\x85q\x000"  # arguments: one tuple of 2000 values
TEXT = b"X" + (2**16).to_bytes(4, "little") + b"a" * 2**16 + b"q\x000"
STATE = (
    b"(K\x01J" + (2**16).to_bytes(4, "little") + b"\x85cnumpy\ndtype\nU\x02u1\x85R\x89h\x00tq\x020"
)
RECONSTRUCTED = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
SMALL = {
    "copies of a tuple": SHARED + b"]" + b"cbuiltins\nlist\nh\x00Ra" * 2000 + b".",
    "copies of a list": b"]"
    + SHARED
    + b"cbuiltins\nlist\nh\x00R\x85q\x010"
    + b"cbuiltins\nlist\nh\x01Ra" * 2000
    + b".",
    "an array built again": TEXT + RECONSTRUCTED + STATE + b"h\x02b" * 2000 + b".",
    "arrays of one text": TEXT + b"]" + STATE + (RECONSTRUCTED + b"h\x02ba") * 1000 + b".",
    "empty sets": b"\x80\x04](" + b"\x8f" * 100000 + b"e.",
    "empty lists": b"\x80\x04](" + b"]" * 100000 + b"e.",
    "empty dictionaries": b"\x80\x04](" + b"}" * 100000 + b"e.",
    "frozen sets": b"\x80\x04](" + b"(\x91" * 100000 + b"e.",
    "lists by marks": b"](" + b"(l" * 100000 + b"e.",
    "dictionaries by marks": b"](" + b"(d" * 100000 + b"e.",
    "tuples of one": b"\x80\x02](" + b"N\x85" * 100000 + b"e.",
    "sets by a call": b"\x80\x02](cbuiltins\nset\nq\x000" + b"h\x00)R" * 100000 + b"e.",
    "dtypes": b"\x80\x02](cnumpy\ndtype\nq\x000U\x03S77\x85q\x010" + b"h\x00h\x01R" * 50000 + b"e.",
    "marks": b"(" * 100000,
}


@pytest.mark.parametrize("content", SMALL.values(), ids=SMALL.keys())
def test_small_pickles_take_no_more_memory_than_allowed(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    assert len(content) < 450000
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="largest_mib"):
            load(path, largest_mib=1)
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "opcodes",
    [b"P1\n.", b"K\x01Q.", b"(i__main__\nA\n.", b"\x82\x01.", b")\x81.", b"(o.", b"\x97."],
    ids=["persistent", "persistent of the stack", "instance", "extension", "new", "obj", "buffer"],
)
def test_other_opcodes_are_refused(tmp_path, opcodes):
    (tmp_path / "a.pkl").write_bytes(opcodes)
    with pytest.raises(InputError, match=r"a\.pkl: refused, the pickle asks for"):
        load(tmp_path / "a.pkl")


def test_a_length_that_the_file_does_not_have(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"a.")
    with pytest.raises(InputError, match="not a whole pickle"):
        load(tmp_path / "a.pkl")
