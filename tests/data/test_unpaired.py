"""How unpaired data sets share the steps of an epoch, and which rows they give.

Letters: N examples, B batch, C steps of an epoch.
"""

import itertools

import numpy as np
import pytest

from affectjax.data.batches.unpaired import Turns, rows

NAMES = ("vision", "text", "audio")
CYCLES = [(1, "batches"), (10, "batches"), (1, "epochs"), (2, "epochs"), (5, "epochs")]
LENGTHS = ("each", "longest", "shortest")


def letters(turns, batches, epoch):
    """Returns what an epoch does, as in "v0 t0 a0 v1"."""
    mine, numbers = turns.plan(batches, epoch)
    said = []
    for c, place in enumerate(mine):
        own = {name: int(number[c]) for name, number in numbers.items()}
        name = turns.names[place]
        assert all((number >= 0) == (other == name) for other, number in own.items()), own
        said.append(f"{name[0]}{own[name]}")
    return " ".join(said)


# ---- whose turn it is, by hand ------------------------------------------------------------------

# cycle, unit, length, and the epochs from the first on, of three, two and one batches.
BY_HAND = {
    "a batch in turn": (
        1, "batches", "each", ["v0 t0 a0 v1 t1 v2", "v3 t2 a1 v4 t3 v5", "v6 t4 a2 v7 t5 v8"],
    ),
    "two batches": (2, "batches", "each", ["v0 v1 t0 t1 a0 v2", "v3 v4 t2 t3 a1 v5"]),
    "more than there are": (10, "batches", "each", ["v0 v1 v2 t0 t1 a0", "v3 v4 v5 t2 t3 a1"]),
    "an epoch": (1, "epochs", "each", ["v0 v1 v2 t0 t1 a0", "v3 v4 v5 t2 t3 a1"]),
    "two epochs": (
        2, "epochs", "each",
        ["v0 v1 v2 v3 v4 v5", "t0 t1 t2 t3 a0 a1", "v6 v7 v8 v9 v10 v11", "t4 t5 t6 t7 a2 a3"],
    ),
    "longest": (
        1, "batches", "longest", ["v0 t0 a0 v1 t1 a1 v2 t2 a2", "v3 t3 a3 v4 t4 a4 v5 t5 a5"],
    ),
    "shortest": (1, "batches", "shortest", ["v0 t0 a0", "v1 t1 a1", "v2 t2 a2", "v3 t3 a3"]),
    "shortest, two epochs": (2, "epochs", "shortest", ["v0 v1 t0", "t1 a0 a1", "v2 v3 t2"]),
}  # fmt: skip


@pytest.mark.parametrize("row", BY_HAND.values(), ids=BY_HAND.keys())
def test_turns_by_hand(row):
    cycle, unit, length, epochs = row
    turns = Turns(NAMES, cycle=cycle, unit=unit, length=length)
    batches = {"audio": 1, "text": 2, "vision": 3}
    assert [letters(turns, batches, e) for e in range(len(epochs))] == epochs
    assert turns.steps(batches) == len(epochs[0].split())


def test_five_epochs_at_a_time():
    """Of 2, 2 and 1 batches five epochs have 25 steps: ten, ten and five."""
    turns = Turns(("audio", "vision", "text"), cycle=5, unit="epochs")
    batches = {"audio": 2, "vision": 2, "text": 1}
    said = " ".join(letters(turns, batches, e) for e in range(10)).split()
    once = [f"a{i}" for i in range(10)] + [f"v{i}" for i in range(10)] + [f"t{i}" for i in range(5)]
    again = [f"{name[0]}{int(name[1:]) + (5 if name[0] == 't' else 10)}" for name in once]
    assert said == once + again


@pytest.mark.parametrize(("length", "counted"), [("each", 3), ("longest", 3), ("shortest", 1)])
def test_together_every_step_has_a_batch_of_each(length, counted):
    turns, batches = (
        Turns(NAMES, together=True, length=length),
        {"vision": 3, "text": 2, "audio": 1},
    )
    for epoch in range(3):
        turn, numbers = turns.plan(batches, epoch)
        assert turns.steps(batches) == counted == len(turn) and not turn.any()
        assert set(numbers) == set(NAMES)
        for number in numbers.values():
            assert number.tolist() == list(range(counted * epoch, counted * (epoch + 1)))


@pytest.mark.parametrize(("cycle", "unit"), CYCLES)
@pytest.mark.parametrize("length", LENGTHS)
def test_turns_last_as_long_as_they_are_said_to(cycle, unit, length):
    """Batches follow each other without a gap, whoever has the turn, in ten epochs."""
    batches = {"vision": 23, "text": 11, "audio": 4}
    turns = Turns(NAMES, cycle=cycle, unit=unit, length=length)
    each = {
        "each": batches,
        "longest": dict.fromkeys(NAMES, 23),
        "shortest": dict.fromkeys(NAMES, 4),
    }
    counts = each[length]
    said = [letters(turns, batches, e).split() for e in range(10)]
    assert {len(epoch) for epoch in said} == {sum(counts.values())}
    by_name = {name: [s for e in said for s in e if s[0] == name[0]] for name in NAMES}
    assert by_name == {n: [f"{n[0]}{i}" for i in range(10 * counts[n])] for n in NAMES}
    flat = [s[0] for epoch in (said if unit == "epochs" else said[:1]) for s in epoch]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(flat)]
    if unit == "epochs":
        expected = [(n[0], cycle * counts[n]) for n in NAMES] * (10 // cycle)
        assert runs == expected
        return
    # A turn is shorter than the cycle only where nothing is left; one alone goes on and on.
    left = dict(counts)
    for letter, length_of_run in runs:
        name = next(n for n in NAMES if n[0] == letter)
        alone = not any(v for n, v in left.items() if n != name)
        assert length_of_run == (left[name] if alone else min(cycle, left[name]))
        left[name] -= length_of_run


def test_the_order_of_the_turns_is_that_of_the_names():
    batches = dict.fromkeys(NAMES, 2)
    for names in itertools.permutations(NAMES):
        said = letters(Turns(names, cycle=1, unit="epochs"), batches, 0)
        assert said == " ".join(f"{n[0]}{i}" for n in names for i in range(2))


def test_data_sets_of_other_names_take_no_part():
    turns = Turns(("audio",))
    assert letters(turns, {"audio": 2, "text": 9}, 1) == "a2 a3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "steps"}, "unit is 'steps'; allowed: batches, epochs"),
        ({"length": "mean"}, "length is 'mean'; allowed: each, longest, shortest"),
        ({"cycle": 0}, "cycle is 0; allowed: 1 or more"),
    ],
)
def test_turns_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Turns(NAMES, **changes)


# ---- which rows ---------------------------------------------------------------------------------

N, B, COLUMNS, EACH = 11, 4, 6, 3


def drawn(numbers, seed=0, stage=0):
    return rows(np.array(numbers), N, B, COLUMNS, seed, stage)


def test_once_through_the_data_set_every_example_comes_once():
    found = drawn(range(3 * EACH))
    assert found.shape == (3 * EACH, COLUMNS) and found.dtype == np.int32
    assert (found[:, B:] == -1).all()
    orders = []
    for again in range(3):
        once = found[again * EACH : (again + 1) * EACH, :B].ravel()
        assert sorted(once) == [-1, *range(N)] and once[-1] == -1
        orders.append(tuple(once))
    assert len(set(orders)) == 3


def test_a_batch_is_known_by_its_number_alone():
    """Whatever stands around it: an epoch that begins within a passage goes on there."""
    whole = drawn(range(4 * EACH))
    mixed = np.array([7, -1, 2, 11, -1, 0, 2])
    found = drawn(mixed)
    for row, number in zip(found, mixed, strict=True):
        np.testing.assert_array_equal(row, whole[number] if number >= 0 else -1)


def test_none_at_all():
    assert (drawn([-1, -1]) == -1).all()


def test_other_seeds_and_stages_have_other_orders():
    found = [
        tuple(drawn(range(EACH), seed, stage).ravel()) for seed in range(3) for stage in (0, 1)
    ]
    assert len(set(found)) == 6


@pytest.mark.parametrize(("cycle", "unit"), CYCLES)
def test_each_example_once_an_epoch_or_k_times_in_k(cycle, unit):
    sizes, turns = {"vision": 23, "text": 8, "audio": 3}, Turns(NAMES, cycle=cycle, unit=unit)
    batches = {name: -(-size // B) for name, size in sizes.items()}
    span = cycle if unit == "epochs" else 1
    for start in range(0, 2 * span, span):
        seen = {name: [] for name in NAMES}
        for epoch in range(start, start + span):
            for name, number in turns.plan(batches, epoch)[1].items():
                own = rows(number, sizes[name], B, B, 5, 1)
                assert (own[number < 0] == -1).all()
                seen[name] += own[own >= 0].tolist()
        for name, size in sizes.items():
            assert sorted(seen[name]) == sorted(span * list(range(size))), name
