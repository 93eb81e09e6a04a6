"""The size that a compressed DICOM frame claims for itself, read from its markers before a decoder trusts it.

Imports nothing of the package. JPEG and JPEG-LS: ITU-T T.81 B.2.2; JPEG 2000: ITU-T T.800 A.5.1.
"""

from __future__ import annotations

__all__ = ["coded_size"]

# start-of-frame markers: SOF0-3, 5-7, 9-11, 13-15 of JPEG and SOF55 of JPEG-LS
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_SIZ = b"\xff\x4f\xff\x51"


def coded_size(code: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 code stream; None for anything else.

    Example:
        >>> coded_size(bytes.fromhex("ffd8 ffc0 0011 08 0010 0020 03".replace(" ", "")) + b"...")
        (16, 32)
    """
    if code[:4] == b"\x00\x00\x00\x0c":  # a JP2 file: the code stream lies in one of its boxes
        start = code.find(_SIZ)
        code = code[start:] if start > 0 else b""
    if code[:4] == _SIZ and len(code) >= 24:
        right, bottom, left, top = (int.from_bytes(code[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    if code[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(code) and code[at] == 0xFF:
        marker = code[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _FRAMES:
            return int.from_bytes(code[at + 5 : at + 7], "big"), int.from_bytes(code[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(code[at + 2 : at + 4], "big")
    return None
