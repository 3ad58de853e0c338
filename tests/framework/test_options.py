"""Handler options: text becomes what the annotation says, and what can't be is refused with what there is."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import pytest

from mpserve.dataplane.errors import SetupError
from mpserve.framework import options
from mpserve.framework.handler import Handler


class Plain(Handler):
    pass


class Shop(Handler):
    greeting: str = "hello"
    shelves: int = 4
    ratio: float = 0.5
    open: bool = True
    key: bytes = b""
    root: Path = Path(".")
    owner: Optional[str] = None  # noqa: UP045
    spare: int | None = None
    mode: Literal["fast", "safe"] = "safe"
    limit: ClassVar[int] = 7
    _private: int = 1
    plain = 3


class Branch(Shop):
    shelves: int = 9
    town: str


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("greeting", "hi=there", "hi=there"),
        ("shelves", "12", 12),
        ("shelves", "0x10", 16),
        ("shelves", 12, 12),
        ("ratio", "1e-3", 0.001),
        ("ratio", 2, 2.0),
        ("open", "no", False),
        ("open", "on", True),
        ("open", False, False),
        ("key", "abc", b"abc"),
        ("root", "/srv", Path("/srv")),
        ("owner", "none", None),
        ("owner", "me", "me"),
        ("spare", "3", 3),
        ("spare", "none", None),
        ("mode", "fast", "fast"),
    ],
)
def test_values_are_converted_by_annotation(name: str, text: Any, value: Any) -> None:
    got = options.parse_options(Shop, {name: text})[name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shelves", "many"),
        ("shelves", 1.5),
        ("shelves", True),
        ("ratio", "half"),
        ("open", "perhaps"),
        ("mode", "faster"),
        ("spare", "x"),
        ("greeting", 5),
        ("root", 5),
    ],
)
def test_what_is_no_such_value_is_refused_naming_what_is_asked_for(name: str, text: Any) -> None:
    with pytest.raises(SetupError) as refused:
        options.parse_options(Shop, {name: text})
    assert f"{name}={text} is not " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_names_are_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(
        SetupError, match=r"no option 'greting' \(did you mean greeting\?\); its options are greeting: str"
    ):
        options.parse_options(Shop, {"greting": "x"})
    with pytest.raises(SetupError, match="takes no options"):
        options.parse_options(Plain, {"x": "1"})


def test_options_are_the_public_annotated_attributes_with_inheritance() -> None:
    found = options.handler_options(Branch)
    assert "town" in found
    assert found["shelves"].default == 9
    assert not {"limit", "_private", "plain"} & set(found)


def test_an_option_without_default_has_to_be_given() -> None:
    with pytest.raises(SetupError, match="Branch needs town: str: add --set town=VALUE"):
        options.parse_options(Branch, {})
    assert options.parse_options(Branch, {"town": "Ulm"}) == {"town": "Ulm"}


def test_values_survive_the_way_to_the_worker() -> None:
    given = options.parse_options(Shop, {"key": b"\xff\x00k", "root": "/srv", "spare": None, "ratio": 0.25})
    sent = json.loads(json.dumps({name: options.plain(value) for name, value in given.items()}))
    assert options.parse_options(Shop, sent) == given


def test_assignments() -> None:
    assert options.parse_assignments(["a=1", "b-c=x=y", "d="]) == {"a": "1", "b_c": "x=y", "d": ""}
    for word in ("a", "=1"):
        with pytest.raises(SetupError, match="type --set NAME=VALUE"):
            options.parse_assignments([word])
