"""Downloads from a server on this machine: complete and right, or not there at all."""

import hashlib
import http.server
import threading

import pytest

from minidl.data import cache_folder, download

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/chunked-and-cut":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ff\r\nonly this")
            return
        if self.path != "/unsized":
            self.send_header("Content-Length", "many" if self.path == "/nonsense" else str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/cut" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "on demand" / "numbers.gz"


@pytest.mark.parametrize("checksum", [MD5, SHA256, SHA256.upper(), SHA256[:8], SHA256[:8].upper()])
@pytest.mark.parametrize("place", ["/file", "/unsized"])
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


def test_an_interrupted_download_leaves_nothing(server, path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        download(server.address + "/file", path, MD5)
    assert list(path.parent.iterdir()) == []


def test_a_checksum_of_unknown_kind_is_refused_before_the_network_is_touched(server, path):
    with pytest.raises(ValueError, match=r"'abc' has 3 digits; expected 32 \(md5\), 64 or 8 \(sha256\)"):
        download(server.address + "/file", path, "abc")
    assert server.requests == [] and not path.parent.exists()


def test_the_cache_folder_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_HOME", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINIDL_HOME", "~/there")
    assert cache_folder() == tmp_path / "there"
    monkeypatch.setenv("MINIDL_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "minidl"
