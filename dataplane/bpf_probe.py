"""Whether this process may load the BPF program that an AF_XDP socket needs. Asked of the kernel, by loading one."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import struct

from mpserve.dataplane.device_checks import has_capability

BPF_PROG_LOAD, BPF_PROG_TYPE_XDP = 5, 6
AF_XDP = 44
CAP_IPC_LOCK = 14
UMEM_BYTES = 48 << 20  # the mbufs that device_port registers as the socket's memory, rounded up
_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}
# r0 = XDP_PASS; exit  (linux/bpf.h: struct bpf_insn)
_PROGRAM = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)


def why_no_af_xdp() -> str:
    """What forbids AF_XDP here, in a few words; "" if nothing does."""
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return f"no AF_XDP sockets: {error.strerror}"
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if not has_capability(CAP_IPC_LOCK) and 0 <= soft < UMEM_BYTES:
        return "ulimit -l is too low and CAP_IPC_LOCK is missing"
    return _why_no_program()


def _why_no_program() -> str:
    number = _SYSCALL_BPF.get(platform.machine())
    if number is None:
        return f"untried on {platform.machine()}"
    program, license_text = ctypes.create_string_buffer(_PROGRAM), ctypes.create_string_buffer(b"GPL")
    head = struct.pack(
        "<IIQQ", BPF_PROG_TYPE_XDP, len(_PROGRAM) // 8, ctypes.addressof(program), ctypes.addressof(license_text)
    )
    attributes = ctypes.create_string_buffer(head + bytes(128 - len(head)), 128)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, BPF_PROG_LOAD, attributes, 128)
    if descriptor < 0:
        return f"BPF programs can't be loaded: {os.strerror(ctypes.get_errno())}"
    os.close(descriptor)
    return ""
