"""Finding handlers: by file, module and entry point; what can't be found is said in one line."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from mpserve.apps.echo import Echo
from mpserve.dataplane.errors import SetupError
from mpserve.framework.handler import Handler
from mpserve.framework.load import find_handler, target_of

ONE = """
import mpserve
class One(mpserve.Handler):
    class Inner(mpserve.Handler):
        pass
"""
TWO = ONE + "class Two(One):\n    pass\nnumber = 5\n"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_by_file(tmp_path: Path) -> None:
    path = write(tmp_path, "load_two.py", TWO)
    assert find_handler(f"{path}:Two").__name__ == "Two"
    assert find_handler(f"{path}:One.Inner").__qualname__ == "One.Inner"
    assert find_handler(f"{path}:Two") is find_handler(f"{path}:Two"), "a file is imported once"


def test_a_file_with_one_handler_needs_no_name(tmp_path: Path) -> None:
    assert find_handler(write(tmp_path, "load_one.py", ONE)).__name__ == "One"


def test_a_file_finds_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "load_neighbour.py", TWO)
    path = write(tmp_path, "load_sibling.py", "from load_neighbour import Two\n")
    assert find_handler(f"{path}:Two").__module__ == "load_neighbour"


def test_a_file_may_be_called_as_a_module_of_the_library_is(tmp_path: Path) -> None:
    found = find_handler(write(tmp_path, "json.py", ONE))
    assert found.__name__ == "One"
    assert "One" not in vars(sys.modules["json"])


def test_by_module() -> None:
    assert find_handler("mpserve.apps.echo:Echo") is Echo


def test_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("shout", "mpserve.apps.echo:Echo", "mpserve.apps"),
        importlib.metadata.EntryPoint("web", "mpserve.cli.http:http", "mpserve.apps"),
        importlib.metadata.EntryPoint("broken", "no_such_package:App", "mpserve.apps"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert find_handler("shout") is Echo
    with pytest.raises(SetupError, match="type mpserve web"):
        find_handler("web")
    with pytest.raises(SetupError, match="can't import broken: ModuleNotFoundError"):
        find_handler("broken")
    with pytest.raises(SetupError, match=r"nothing is called 'shot' \(did you mean shout\?\)"):
        find_handler("shot")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (TWO, "Tow", "has no 'Tow' (did you mean Two?); it has "),
        (TWO, "number", "is no mpserve.Handler; there is "),
        (TWO, "", "has 2 handlers: type one of "),
        ("x = 1\n", "", "has no Handler: define class NAME(mpserve.Handler) in it"),
        ("x = 1\n", "One", "has no Handler: define class NAME(mpserve.Handler) in it"),
        ("import mpserve\ny = x\n", "One", "line 2: NameError: name 'x' is not defined"),
        ("import no_such_package\n", "One", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def f(:\n", "One", "line 1: "),
        ("raise SystemExit\n", "One", "SystemExit"),
        (ONE + "    def on_dta(self, sock, data): pass\n", "One", "One.on_dta is no callback (did you mean on_data?)"),
        (
            ONE + "    def on_data(self, data): pass\n",
            "One",
            "One.on_data takes 2 arguments, self included: it is called with 3",
        ),
        (ONE + "    async def on_data(self, sock, data): pass\n", "One", "One.on_data is async"),
        (
            ONE + "    async def handle(self, stream): pass\n    def on_data(self, sock, data): pass\n",
            "One",
            "One defines both handle and on_data",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, text: str, name: str, words: str) -> None:
    path = write(tmp_path, f"load_bad_{abs(hash((text, name)))}.py", text)
    with pytest.raises(SetupError) as refused:
        find_handler(f"{path}:{name}" if name else path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("target", ["no/such/file.py:X", "no_such_module:X"])
def test_what_is_not_there_is_refused(target: str) -> None:
    with pytest.raises(SetupError):
        find_handler(target)


def test_target_of_is_the_way_back(tmp_path: Path) -> None:
    assert target_of(Echo) == "mpserve.apps.echo:Echo"
    path = write(tmp_path, "load_back.py", TWO)
    assert target_of(find_handler(f"{path}:One.Inner")) == f"{path}:One.Inner"


def test_target_of_a_class_of_main(tmp_path: Path) -> None:
    path = write(
        tmp_path, "load_main.py", ONE + "from mpserve.framework.load import target_of\nprint(target_of(One))\n"
    )
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{path}:One"


def test_target_of_refuses_what_another_process_cannot_find() -> None:
    class Local(Handler):
        pass

    with pytest.raises(SetupError, match="made inside a function"):
        target_of(Local)
    with pytest.raises(SetupError, match="pass a subclass of mpserve.Handler"):
        target_of(Handler)
    with pytest.raises(SetupError, match="not an instance"):
        target_of(Echo())  # type: ignore[arg-type]
