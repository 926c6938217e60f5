"""Whether the kernel says that the wall clock is right."""

from __future__ import annotations

import ctypes

_SIZE, _TIME_ERROR = 512, 5
"""Room for the structure of adjtimex(2), all zero for a question, and the answer that nothing disciplines the clock."""

_libc = ctypes.CDLL(None)


def is_disciplined() -> bool:
    """Whether something keeps the wall clock right, such as NTP, and nobody has set it since."""
    state: int = _libc.adjtimex(ctypes.create_string_buffer(_SIZE))
    return 0 <= state < _TIME_ERROR
