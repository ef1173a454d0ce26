"""Each equation of the papers is found by its number, in one place."""

import collections
import pathlib
import re

import affectjax

NUMBERS = {"UMBEnet": range(2, 15), "MCR": range(1, 17), "Supramodal": range(2, 9)}


def test_each_equation_stands_in_one_place():
    files = pathlib.Path(affectjax.__file__).parent.rglob("*.py")
    found = collections.Counter(
        match
        for file in files
        for match in re.findall(r"Equation: (\w+) \((\d+)\)", file.read_text())
    )
    assert found == {(paper, str(n)): 1 for paper, numbers in NUMBERS.items() for n in numbers}
