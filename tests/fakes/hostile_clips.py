"""Files that are no clips but make FFmpeg read other files, open connections or devices, or work without end."""

from __future__ import annotations

import base64
from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"


def references(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents: each refers to the file `target` or to the address `url`."""
    yield from _concat(target, url)
    yield from _playlists(target, url)
    yield from _descriptions(target, url)
    yield from _pictures(target, url)
    yield from _texts(target, url)


def _concat(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    head = "ffconcat version 1.0\n"
    for name, what in (("relative", target.rsplit("/", 1)[-1]), ("absolute", target), ("file", f"file:{target}")):
        yield f"concat-{name}", f"{head}file {what}\n".encode()
    yield "concat-quoted", f"{head}file '{target}'\n".encode()
    yield "concat-http", f"{head}file {url}/a.mp4\n".encode()
    yield "concat-unsafe", f"{head}option safe 0\nfile {target}\n".encode()
    yield "concat-crlf", f"ffconcat version 1.0\r\nfile {target}\r\n".encode()
    yield "concat-bom", BOM + f"{head}file {target}\n".encode()
    yield "concat-blank-lines", b"\n\n \n" + f"{head}file {target}\n".encode()
    yield "concat-comment", f"# a\n{head}file {target}\n".encode()
    yield "concat-without-head", f"file {target}\nfile {target}\n".encode()
    yield "concat-jam", (head + f"file {target}\noutpoint 0.04\n" + f"file {target}\ninpoint 9.99\n" * 20_000).encode()
    yield "concat-data", f"{head}file data:video/mp4;base64,{base64.b64encode(b'x' * 90).decode()}\n".encode()
    yield "concat-stream", f"{head}stream\nexact_stream_id 1\nfile {target}\n".encode()
    yield "concat-utf16", f"{head}file {target}\n".encode("utf-16")


def _playlists(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
    for name, what in (("file", f"file://{target}"), ("plain", target), ("http", f"{url}/a.ts")):
        yield f"hls-{name}", f"{hls}{what}\n#EXT-X-ENDLIST\n".encode()
    yield "hls-nested", f"{hls}concat:{target}|{target}\n#EXT-X-ENDLIST\n".encode()
    yield "hls-key", f'{hls[:8]}#EXT-X-KEY:METHOD=AES-128,URI="{url}/k"\n#EXTINF:1,\n{target}\n'.encode()
    yield "hls-map", f'#EXTM3U\n#EXT-X-MAP:URI="{url}/i"\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n'.encode()
    yield "hls-master", f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/b.m3u8\n".encode()
    yield "hls-bom", BOM + f"{hls}{target}\n#EXT-X-ENDLIST\n".encode()
    yield "m3u", f"{target}\n{url}/a.mp4\n".encode()
    yield "pls", f"[playlist]\nFile1={url}/a.mp4\nNumberOfEntries=1\n".encode()
    yield "asx", f'<asx version="3.0"><entry><ref href="{url}/a.asf"/></entry></asx>'.encode()
    yield "ram", f"rtsp{url[4:]}/a\n".encode()
    yield (
        "xspf",
        f"<playlist><trackList><track><location>file://{target}</location></track></trackList></playlist>".encode(),
    )
    yield "smil", f'<smil><body><video src="{url}/a.mp4"/></body></smil>'.encode()


def _descriptions(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    port = url.rsplit(":", 1)[-1]
    sdp = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    sdp += "a=rtpmap:96 H264/90000\n"
    yield "sdp", sdp.encode()
    yield "sdp-crlf", sdp.replace("\n", "\r\n").encode()
    mpd = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    for name, base in (("http", f"{url}/"), ("file", f"file://{target}")):
        body = f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{base}</BaseURL>'
        yield f"dash-{name}", f"{mpd}{body}</Representation></AdaptationSet></Period></MPD>".encode()
    yield "smooth", f'<SmoothStreamingMedia><StreamIndex Url="{url}/q"/></SmoothStreamingMedia>'.encode()
    yield "rtsp-url", f"rtsp://127.0.0.1:{port}/stream".encode()
    yield "ffmetadata", b";FFMETADATA1\ntitle=x\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1\n"
    yield "imf-cpl", f"<CompositionPlaylist><Reel><Path>{target}</Path></Reel></CompositionPlaylist>".encode()
    yield "vapoursynth", f"import vapoursynth as vs\nopen({target!r})\n".encode()
    yield "avisynth", f'DirectShowSource("{target}")\n'.encode()


def _pictures(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9" height="9">'
    yield "svg-http", f'{svg}<image xlink:href="{url}/a.png"/></svg>'.encode()
    yield "svg-file", f'<?xml version="1.0"?>{svg}<image xlink:href="file://{target}"/></svg>'.encode()
    yield "svg-entity", f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file://{target}">]>{svg}<text>&x;</text></svg>'.encode()
    yield "postscript", f"%!PS-Adobe-3.0\n({target}) run\n".encode()
    yield "xpm", b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n'
    yield "pdf", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n"


def _texts(target: str, url: str) -> Iterator[tuple[str, bytes]]:
    yield "lavfi", b"testsrc=size=64x48:rate=10"
    yield "movie-filter", f"movie={target}".encode()
    yield "subfile", f"subfile,,start,0,end,0,,:{target}".encode()
    yield "srt", f"1\n00:00:00,000 --> 00:00:01,000\n{target}\n".encode()
    yield "ass", f"[Script Info]\nVideo File: {target}\n[Events]\n".encode()
    yield "microdvd", f"{{1}}{{1}}25\n{{0}}{{9}}{url}\n".encode()
    yield "tee", f"[f=mp4]{target}|[f=mp4]{url}/b".encode()
    yield "path", target.encode()
    yield "address", f"{url}/a.mp4".encode()
    yield "zip", b"PK\x03\x04" + b"\0" * 60
    yield "elf", b"\x7fELF" + b"\0" * 60
    yield "wave", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + b"\0" * 40
