"""The same scripted peers speak to Linux's TCP and to ours. Every difference they see is listed and explained in `docs/tcp.md`.

Virtual time, where the other tests of the stack live, knows only what we believe of a TCP; this one asks another.
"""

import platform
import re
from concurrent.futures import Future

import pytest
import scripts_closing  # noqa: F401  # they enter their scripts into SCRIPTS
import scripts_connecting  # noqa: F401
import scripts_opening  # noqa: F401
import scripts_receiving  # noqa: F401
import scripts_resets  # noqa: F401
import scripts_sending  # noqa: F401
from beside_linux import LINUX, PAGE, listed, row
from script import SCRIPTS
from view import View, differences

LISTED = listed()


@pytest.mark.root
@pytest.mark.dpdk
@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_peer_sees(name: str, views: dict[str, tuple[Future[View], Future[View]]]) -> None:
    linux, ours = (future.result() for future in views[name])
    found = differences(linux, ours)
    expected = [difference for difference, _ in LISTED.get(name, [])]
    new = [row(name, difference) for difference in found if difference not in expected]
    gone = [row(name, difference) for difference in expected if difference not in found]
    if (new or gone) and not platform.release().startswith(f"{LINUX}."):
        pytest.xfail(
            f"the table is about Linux {LINUX}, and {platform.release()} does otherwise: {'; '.join(new + gone)}"
        )
    assert not new and not gone, "\n".join(
        [f"{name}: {SCRIPTS[name].__doc__} On Linux {platform.release()}", "not listed:", *new]
        + ["listed, but not seen:", *gone, "with Linux:", linux.text(), "with mpserve:", ours.text()]
    )


def test_the_page_says_how_many_scripts_there_are_and_which_linux() -> None:
    words = " ".join(PAGE.read_text().split())
    assert f"Of {len(SCRIPTS)} scripts" in words and f"Linux is {LINUX}," in words


def test_what_is_listed_belongs_to_a_script_and_has_a_reason() -> None:
    assert set(LISTED) <= set(SCRIPTS)
    for name, rows in LISTED.items():
        first, *others = (why for _, why in rows)
        assert len(first) > 20 and all(why == "the same" or len(why) > 20 for why in others), name
        assert set(re.findall("^as in `(.*)`$", first)) <= set(LISTED) - {name}
