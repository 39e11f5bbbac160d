"""Records: fields, defaults, and the way to plain values and back."""

from __future__ import annotations

import marshal
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.record import Record


class Leaf(Record):
    name: str
    size: int = 1


class Tree(Record):
    uid: str
    first: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()

    _nested: ClassVar[dict[str, type[Record]]] = {"first": Leaf, "leaves": Leaf}


class Oak(Tree):
    rings: int = 0


def test_fields_are_the_annotated_names_in_order() -> None:
    assert Leaf._fields == ("name", "size")
    assert Oak._fields == ("uid", "first", "leaves", "rings")


def test_what_is_not_given_is_the_default() -> None:
    leaf = Leaf(name="a")
    assert (leaf.name, leaf.size) == ("a", 1)
    assert "size" not in vars(leaf)


@pytest.mark.parametrize(
    ("values", "told"),
    [({}, "Leaf: name is missing"), ({"size": 2}, "name is missing"), ({"name": "a", "x": 1}, "has no x")],
)
def test_wrong_fields(values: dict[str, object], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        Leaf(**values)


def test_fields_have_no_order() -> None:
    with pytest.raises(TypeError):
        Leaf("a")  # type: ignore[misc]


def test_comparing() -> None:
    assert Leaf(name="a") == Leaf(name="a", size=1)
    assert Leaf(name="a") != Leaf(name="a", size=2)
    assert Tree(uid="a") != Oak(uid="a")
    assert Leaf(name="a") != {"name": "a", "size": 1}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Leaf(name="a"))


def test_printing() -> None:
    tree = Tree(uid="t", leaves=(Leaf(name="a"),))
    assert repr(tree) == "Tree(uid='t', first=None, leaves=(Leaf(name='a', size=1),))"


def test_replace_makes_a_copy() -> None:
    leaf = Leaf(name="a")
    assert leaf.replace(size=3) == Leaf(name="a", size=3)
    assert leaf.size == 1
    with pytest.raises(TypeError, match="has no colour"):
        leaf.replace(colour="green")


def test_to_plain() -> None:
    tree = Oak(uid="t", first=Leaf(name="f"), leaves=(Leaf(name="a"), Leaf(name="b", size=2)))
    assert tree.to_plain() == {
        "uid": "t",
        "first": {"name": "f", "size": 1},
        "leaves": ({"name": "a", "size": 1}, {"name": "b", "size": 2}),
        "rings": 0,
    }


def test_from_plain_takes_lists_and_leaves_its_argument_alone() -> None:
    plain = {"uid": "t", "leaves": [{"name": "a"}]}
    assert Tree.from_plain(plain) == Tree(uid="t", leaves=(Leaf(name="a"),))
    assert plain == {"uid": "t", "leaves": [{"name": "a"}]}


@pytest.mark.parametrize(
    "plain", [{}, {"uid": "t", "x": 1}, {"uid": "t", "first": {}}, {"uid": "t", "leaves": ({"size": 1},)}]
)
def test_from_plain_of_another_shape(plain: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Tree.from_plain(plain)


leaves = st.builds(Leaf, name=st.text(), size=st.integers())


@given(st.builds(Oak, uid=st.text(), first=st.none() | leaves, leaves=st.lists(leaves).map(tuple)))
def test_there_and_back(tree: Oak) -> None:
    assert Oak.from_plain(marshal.loads(marshal.dumps(tree.to_plain()))) == tree


def test_to_brief_leaves_out_what_is_as_it_would_be() -> None:
    tree = Oak(uid="t", first=None, leaves=(Leaf(name="a", size=1), Leaf(name="b", size=2)), rings=0)
    assert tree.to_brief() == {"uid": "t", "leaves": ({"name": "a"}, {"name": "b", "size": 2})}
    assert Oak.from_plain(tree.to_brief()) == tree
    assert Oak(uid="t", rings=False).to_brief() == {"uid": "t", "rings": False}  # equal, but another type
