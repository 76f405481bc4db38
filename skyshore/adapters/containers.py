"""Which container a file is, decided by its first bytes and by nothing else.

Only containers that hold their own pictures are listed. FFmpeg alone would also open playlists, descriptions and
devices, which make it read other files or the network.
"""

from __future__ import annotations

HEAD_BYTES = 4096
"""First bytes of a file that `container_of` needs."""
ALLOWED = (
    "MP4, MOV, MKV, WebM, AVI, MPEG-TS, MPEG-PS, MPEG video, Ogg, FLV, ASF, MXF, IVF, Y4M, H.264, H.265, GIF, PNG, "
    "JPEG and WebP"
)

_MAGIC = (
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"OggS", "ogg"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
    (0, b"DKIF\x00\x00", "ivf"),
    (0, b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (0, b"\xff\xd8\xff", "jpeg_pipe"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"\x00\x00\x01\xb3", "mpegvideo"),
)
"""Offset, bytes and FFmpeg's name of the demuxer."""
_RIFF = {b"AVI ": "avi", b"WEBP": "webp_pipe"}
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"sidx", b"moof"}
"""Boxes with which an MP4 or QuickTime file may begin."""
_TS_PACKETS = (188, 192, 204)
"""Bytes from one synchronisation byte of a transport stream to the next, in its three forms."""
_TS_SYNCS = 5
_H264_FIRST = {6, 7, 9}
"""NAL unit types with which an H.264 stream begins: SEI, sequence parameters, delimiter (ITU-T H.264, table 7-1)."""
_H265_FIRST = {32, 33, 35, 39}
"""The same of H.265, and video parameters (ITU-T H.265, table 7-1)."""


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of the demuxer for a file that begins with `head`; None if it is no container that is allowed."""
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            return name
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    return _elementary(head) or ("mpegts" if _is_transport_stream(head) else None)


def _elementary(head: bytes) -> str | None:
    start = 3 if head.startswith(b"\x00\x00\x01") else 4 if head.startswith(b"\x00\x00\x00\x01") else 0
    if not start or len(head) < start + 2 or head[start] & 0x80:  # the forbidden bit
        return None
    if head[start] & 0x1F in _H264_FIRST:
        return "h264"
    # The second byte ends with the temporal number plus 1, which is 1 here.
    return "hevc" if head[start] >> 1 in _H265_FIRST and head[start + 1] == 1 else None


def _is_transport_stream(head: bytes) -> bool:
    """Whether synchronisation bytes follow each other at one of the three distances.

    A recording may begin inside a packet, or lose bytes soon after its start.
    """
    return any(
        head[first] == 0x47 and all(head[at] == 0x47 for at in range(first, first + size * _TS_SYNCS, size))
        for size in _TS_PACKETS
        for first in range(len(head) - size * (_TS_SYNCS - 1))
    )
