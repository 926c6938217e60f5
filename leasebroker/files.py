"""Small files in the state folder that a power cut leaves whole: as they were, or as they shall be."""

from __future__ import annotations

import secrets
from pathlib import Path

from dhcpd.database import sync


def replace(path: Path, text: str) -> None:
    """On the disk when this returns. Raises OSError, and then the file is as it was."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    sync(draft)
    draft.rename(path)
    sync(path.parent)


def read_site(state: Path) -> str:
    """What tells this machine from others with the same names on a VLAN: made once, eight hexadecimal digits in the
    state folder. Raises OSError."""
    file = state / "site"
    try:
        if site := "".join(one for one in file.read_text(errors="replace")[:32] if one in "0123456789abcdef"):
            return site
    except FileNotFoundError:
        pass
    site = secrets.token_hex(4)
    replace(file, site + "\n")
    return site
