"""Every function of the shim has a name, an address and a numba signature; a missing one stops the import."""

import re
from pathlib import Path

import pytest

symbols = pytest.importorskip("pydpdk.symbols", reason="pydpdk's extension isn't built", exc_type=ImportError)

SHIM = Path(symbols.__file__).with_name("shim.h").read_text()


def test_shim_and_names_agree():
    declared = dict(re.findall(r"^int64_t (pydpdk_\w+)\((.*)\);$", SHIM, re.M))
    arguments = {name: " ".join(re.findall(r"int64_t (\w+)", text)) for name, text in declared.items()}
    assert arguments == symbols.ARGUMENTS
    assert set(symbols.ADDRESSES) == set(symbols.ARGUMENTS)


def test_a_missing_symbol_is_an_import_error():
    without = dict(symbols.ADDRESSES, pydpdk_rx_burst=0)
    with pytest.raises(ImportError, match="lacks pydpdk_rx_burst"):
        symbols.check_table(without)


def test_registered_with_llvmlite():
    import llvmlite.binding

    symbols.register()
    for name in symbols.ARGUMENTS:
        assert llvmlite.binding.address_of_symbol(name) == symbols.address(name)


def test_every_function_is_offered_to_numba():
    from pydpdk import compiled

    for name, arguments in symbols.ARGUMENTS.items():
        external = getattr(compiled, name.removeprefix("pydpdk_"))
        assert external.symbol == name
        assert len(external.sig.args) == len(arguments.split())
