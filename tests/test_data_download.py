"""Downloads from a server on this machine: complete and right, or not there at all."""

import contextlib
import hashlib
import http.server
import itertools
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module

import pytest

from minidl.data import cache_folder, download

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        with contextlib.suppress(OSError):  # the other side may have had enough
            getattr(self, f"send_{self.path[1:].replace('-', '_')}")()

    def log_message(self, *_):
        pass

    def send(self, content=CONTENT, length=None, code=200, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if length != "none":
            self.send_header("Content-Length", str(len(CONTENT) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def drip(self, pieces):
        """The pieces, 20 ms apart, as long as the test goes on."""
        for piece in pieces:
            self.wfile.write(piece)
            if self.server.done.wait(0.02):
                return

    def send_file(self):
        self.send()

    def send_unsized(self):
        self.send(length="none")

    def send_missing(self):
        self.send_error(404)

    def send_cut(self):
        self.send(CONTENT[:1000])

    def send_nonsense(self):
        self.send(length="many")

    def send_negative(self):
        self.send(length=-5)

    def send_huge(self):
        self.send(length=10**30)

    def send_chunked_and_cut(self):
        self.send(b"ff\r\nonly this", "none", **{"Transfer-Encoding": "chunked"})

    def send_longer(self):
        self.send(CONTENT + b"more", "none")

    def send_redirect(self):
        self.send(b"", 0, 302, Location="/file")

    def send_redirect_to_a_file(self):
        self.send(b"", 0, 302, Location="file:///etc/hostname")

    def send_redirect_to_ftp(self):
        self.send(b"", 0, 302, Location="ftp://127.0.0.1/file")

    def send_redirect_to_nonsense(self):
        self.send(b"", 0, 302, Location="http://[::1")

    def send_control_characters(self):
        self.wfile.write(b"HTTP/1.0 500 \x1b[2Jgone\r\n\r\n")

    def send_endless(self):
        self.send(b"", "none")
        while True:
            self.wfile.write(CONTENT)

    def send_dripping(self):
        self.send(b"")
        self.drip(itertools.repeat(b"x"))

    def send_dripping_headers(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        self.drip(itertools.repeat(b"X"))

    def send_slowly(self):
        """A first piece, and the rest once as many have asked as are to be served together."""
        self.send(CONTENT[: len(CONTENT) // 2])
        while self.server.requests.count("/slowly") < self.server.together and not self.server.done.wait(0.01):
            pass
        self.drip(CONTENT[i : i + 10_000] for i in range(len(CONTENT) // 2, len(CONTENT), 10_000))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.together, server.done = [], 1, threading.Event()
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "on demand" / "numbers.gz"


@pytest.mark.parametrize("checksum", [MD5, SHA256, SHA256.upper(), SHA256[:8], SHA256[:8].upper()])
@pytest.mark.parametrize("place", ["/file", "/unsized", "/redirect"])
def test_a_file_arrives_complete(server, path, checksum, place):
    assert download(server.address + place, path, checksum) == path
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("checksum", [MD5, SHA256, SHA256[:8]])
def test_a_file_that_is_there_is_not_downloaded_again(server, path, checksum):
    for _ in range(2):
        download(server.address + "/file", path, checksum)
    assert server.requests == ["/file"]


@pytest.mark.parametrize("checksum", [MD5, SHA256[:8]])
def test_a_file_that_is_damaged_is_replaced(server, path, checksum):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    download(server.address + "/file", path, checksum)
    assert path.read_bytes() == CONTENT


FAILURES = [
    ("/missing", MD5, "HTTP Error 404: Not Found"),
    ("/cut", MD5, "the connection ended after 1,000 of 256,000 bytes"),
    ("/chunked-and-cut", MD5, "IncompleteRead"),
    ("/nonsense", MD5, "many"),
    ("/negative", MD5, "announces -5 bytes"),
    ("/huge", MD5, "announces 1,000,.*; expected at most 1,073,741,824"),
    ("/redirect-to-a-file", MD5, "Redirection to url 'file:///etc/hostname' is not allowed"),
    ("/redirect-to-ftp", MD5, "it redirects to ftp://127.0.0.1/file, which is neither"),
    ("/redirect-to-nonsense", MD5, "redirect-to-nonsense: "),
    ("/control-characters", MD5, r"HTTP Error 500: \?\[2Jgone"),
    ("/file", "0" * 32, f"its 256,000 bytes have the md5 {MD5}"),
    ("/file", "0" * 64, f"its 256,000 bytes have the sha256 {SHA256}"),
    ("/file", "0" * 8, f"its 256,000 bytes have the sha256 {SHA256}"),
    ("/file", SHA256[-8:], f"its 256,000 bytes have the sha256 {SHA256}"),
    ("/file", MD5[:8], f"its 256,000 bytes have the sha256 {SHA256}"),
]


@pytest.mark.parametrize("existing", [None, b"older"], ids=["nothing there", "a file there"])
@pytest.mark.parametrize("place, checksum, complaint", FAILURES, ids=lambda value: value[:20])
def test_a_failure_leaves_everything_as_it_was(server, path, place, checksum, complaint, existing):
    path.parent.mkdir(parents=True)
    if existing is not None:
        path.write_bytes(existing)
    with pytest.raises(OSError, match=complaint) as caught:
        download(server.address + place, path, checksum)
    message = str(caught.value)
    assert server.address + place in message
    assert f"put the file at {path} by hand" in message and checksum in message
    assert [file.read_bytes() for file in path.parent.iterdir()] == ([] if existing is None else [existing])


def test_mirrors_are_tried_in_order_until_one_has_the_file(server, path):
    places = ["/missing", "/cut", "/file", "/unsized"]
    download(tuple(server.address + place for place in places), path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == places[:3]


def test_the_error_gives_the_reason_of_each_mirror(server, path):
    with pytest.raises(OSError) as caught:
        download((server.address + "/missing", server.address + "/cut", "nowhere"), path, MD5)
    for reason in "404", "1,000 of 256,000", "unknown url type":
        assert reason in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_server_that_is_not_there(server, path):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="could not download numbers.gz"):
        download(server.address + "/file", path, MD5)
    assert list(path.parent.iterdir()) == []


def test_an_answer_that_is_longer_than_the_file_is_cut_off(server, path):
    for place, complaint in ("/longer", "the answer is longer than 256,000"), ("/endless", "the answer is longer"):
        with pytest.raises(OSError, match=complaint):
            download(server.address + place, path, MD5, len(CONTENT))
    with pytest.raises(OSError, match="announces 256,000 bytes; expected at most 1,000"):
        download(server.address + "/file", path, MD5, 1000)
    assert list(path.parent.iterdir()) == []
    assert download(server.address + "/file", path, MD5, len(CONTENT)) == path


def test_an_endless_answer_of_unknown_size_ends(server, path, monkeypatch):
    monkeypatch.setattr(import_module("minidl.data.download"), "MAX_BYTES", 5_000_000)
    with pytest.raises(OSError, match="the answer is longer than 5,000,000 bytes"):
        download(server.address + "/endless", path, MD5)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["/dripping", "/dripping-headers"])
def test_an_answer_that_only_drips_ends(server, path, monkeypatch, place):
    monkeypatch.setattr("minidl.data.transport.PERIOD", 0.2)
    with pytest.raises(OSError, match=r"only [\d,]+ bytes came in 0 s; 1,000 per second are expected at least"):
        download(server.address + place, path, MD5)
    assert list(path.parent.iterdir()) == []


def test_an_answer_that_is_slow_but_fast_enough_arrives(server, path, monkeypatch):
    monkeypatch.setattr("minidl.data.transport.PERIOD", 0.1)
    download(server.address + "/slowly", path, MD5)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["/missing", "/redirect-to-a-file", "/redirect-to-nonsense", "/cut", "/huge"])
def test_every_answer_is_closed(server, path, monkeypatch, place):
    answers = []

    class Noted(import_module("minidl.data.transport")._PacedResponse):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            answers.append(self)

    monkeypatch.setattr("minidl.data.transport._PacedResponse", Noted)
    with pytest.raises(OSError):
        download(server.address + place, path, MD5)
    assert len(answers) == 1 and answers[0].isclosed()


def test_an_interrupted_download_leaves_nothing(server, path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        download(server.address + "/file", path, MD5)
    assert list(path.parent.iterdir()) == []


def other_process(server, path):
    """Another process that downloads `path` slowly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = f"from minidl.data import download; download({server.address + '/slowly'!r}, {str(path)!r}, {MD5!r})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def wait_for_part(path, count=1):
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size > 0 for part in path.parent.glob(".*.minidl-part")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_killed_download_leaves_the_next_one_removes(server, path):
    with other_process(server, path) as process:
        wait_for_part(path)
        process.kill()
    assert len(list(path.parent.iterdir())) == 1
    others = [path.parent / name for name in (f".{path.name}.part", f".other.{'0' * 16}.minidl-part", "my.minidl-part")]
    for other in others:
        other.touch()
    download(server.address + "/file", path, MD5)
    assert sorted(path.parent.iterdir()) == sorted([path, *others])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_download_that_is_told_to_end_leaves_nothing(server, path, number):
    with other_process(server, path) as process:
        wait_for_part(path)
        process.send_signal(number)
        assert process.wait() == -number
    assert list(path.parent.iterdir()) == []


def test_downloads_at_the_same_time_do_not_touch_each_other(server, path):
    server.together = 3
    with other_process(server, path) as one, other_process(server, path) as another:
        wait_for_part(path, 2)
        download(server.address + "/slowly", path, MD5)
        assert one.wait() == another.wait() == 0
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]


def test_a_checksum_of_unknown_kind_is_refused_before_the_network_is_touched(server, path):
    with pytest.raises(ValueError, match=r"'abc' has 3 digits; expected 32 \(md5\), 64 or 8 \(sha256\)"):
        download(server.address + "/file", path, "abc")
    assert server.requests == [] and not path.parent.exists()


def test_the_cache_folder_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("MINIDL_HOME", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MINIDL_HOME", "~/there")
    assert cache_folder() == tmp_path / "there"
    monkeypatch.setenv("MINIDL_HOME", "")
    assert cache_folder() == tmp_path / "caches" / "minidl"
    for unusable in "", "relative":
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == tmp_path / ".cache" / "minidl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "minidl"
