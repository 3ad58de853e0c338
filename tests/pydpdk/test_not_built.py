"""What `import pydpdk` says where the extension can't be had."""

import subprocess
import sys

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pydpdk._dpdk":
            raise {error}
sys.meta_path.insert(0, Block())
try:
    import pydpdk
except ImportError as error:
    print(type(error).__name__, error)
"""


def import_with(error):
    program = BLOCKED.format(error=error)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_extension_missing():
    said = import_with("ModuleNotFoundError(name, name=name)")
    assert said.startswith("NotBuiltError pydpdk was installed without DPDK: apt install libdpdk-dev")


def test_library_missing():
    said = import_with("ImportError('librte_ethdev.so.23: cannot open shared object file')")
    assert said.startswith("NotBuiltError pydpdk's extension doesn't load (librte_ethdev.so.23: cannot open")
