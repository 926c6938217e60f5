"""Run a command as on a kernel without nf_tables: the kernel refuses it the sockets for that (seccomp).

python -m tests.lab.old_kernel COMMAND ...
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import sys
from errno import EPROTONOSUPPORT
from struct import pack

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_NETLINK_NETFILTER = 12
_NUMBER_OF_SOCKET = {"x86_64": 41, "aarch64": 198}
_NUMBER, _FAMILY, _PROTOCOL = 0, 16, 32
"""Where the system call's number, first and third argument are (``struct seccomp_data``)."""
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_netfilter() -> None:
    """From now on, for this process and its children, ``socket(AF_NETLINK, ..., NETLINK_NETFILTER)`` fails as on a
    kernel without CONFIG_NETFILTER_NETLINK."""
    wanted = {_NUMBER: _NUMBER_OF_SOCKET[platform.machine()], _FAMILY: socket.AF_NETLINK, _PROTOCOL: _NETLINK_NETFILTER}
    filters = b"".join(
        pack("=HBBI", _LOAD, 0, 0, offset) + pack("=HBBI", _JUMP_IF_EQUAL, 0, 5 - 2 * index, value)
        for index, (offset, value) in enumerate(wanted.items())
    )
    filters += pack("=HBBI", _RETURN, 0, 0, _ERROR | EPROTONOSUPPORT) + pack("=HBBI", _RETURN, 0, 0, _ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(_Program(8, filters))):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse_netfilter()
    os.execvp(sys.argv[1], sys.argv[1:])
