"""Image files of every kind: known pixels come back, and no damaged file gets through."""

import re
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest

from minidl.data import read_gray, read_rgb

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 23
RGB = np.random.default_rng(0).integers(256, size=(3, 4, 3), dtype=np.uint8)
ALPHA = np.array([[0, 255, 128, 1], [255, 0, 64, 254], [10, 100, 200, 255]], np.uint8)
WORDS = np.array([[0, 1, 255, 256, 257], [1000, 32767, 32768, 65534, 65535]], np.uint16)  # 16 bits


def planes(pixels):
    """(H, W) or (H, W, 3) in 0 to 255 as what `read_rgb` owes: three planes in [0, 1]."""
    pixels = np.asarray(pixels, np.float64)
    return np.stack([pixels] * 3 if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)) / 255


def on_white(pixels, alpha):
    alpha = np.asarray(alpha, np.float64).reshape(alpha.shape + (1,) * (pixels.ndim - 2)) / 255
    return planes(pixels * alpha + 255 * (1 - alpha))


def png(colour_type, samples, *chunks):
    """A PNG of 16 bits a sample, most of which Pillow cannot write; `samples` (H, W) or (H, W, channels)."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    )


def check_pixels(path, expected, steps=0.0):
    """What is read at `path` is `expected`, up to `steps` of the 255 from black to white."""
    pixels = read_rgb(path)
    assert pixels.dtype == np.float32 and pixels.shape == expected.shape
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    assert 0 <= pixels.min() and pixels.max() <= 1
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=steps / 255 + 1e-6)


def check_refused(path, error=ValueError, complaint=None):
    with pytest.raises(error, match=complaint) as caught:
        read_rgb(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm", "tif", "webp"])
def test_colours_come_back_as_planes(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(RGB).save(path, **{"lossless": True} if kind == "webp" else {})
    check_pixels(path, planes(RGB))
    np.testing.assert_array_equal(read_rgb(str(path)), read_rgb(path))


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "pgm", "tif"])
def test_gray_becomes_three_equal_planes(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(GRAY).save(path)
    check_pixels(path, planes(GRAY))


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_one_bit_is_black_or_white(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(GRAY > 100).save(path)
    check_pixels(path, planes((GRAY > 100) * 255))


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "colour"])
def test_what_is_transparent_is_seen_on_white(tmp_path, kind, pixels):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.dstack([pixels, ALPHA])).save(path)
    check_pixels(path, on_white(pixels, ALPHA), steps=1)


PALETTE = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], np.uint8)
INDICES = np.array([[0, 1, 2, 1], [2, 2, 0, 0], [1, 0, 1, 2]], np.uint8)


def palette_image():
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(PALETTE.tobytes())
    return image


@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "tif"])
def test_a_palette_is_looked_up(tmp_path, kind):
    palette_image().save(tmp_path / f"a.{kind}")
    check_pixels(tmp_path / f"a.{kind}", planes(PALETTE[INDICES]))


@pytest.mark.parametrize("kind, transparency, opacities", [
    ("png", 1, [255, 0, 255]),
    ("png", bytes([255, 128, 0]), [255, 128, 0]),
    ("gif", 1, [255, 0, 255]),
], ids=["png, a colour", "png, levels", "gif"])
def test_a_palette_with_transparency_is_seen_on_white(tmp_path, kind, transparency, opacities):
    path = tmp_path / f"a.{kind}"
    palette_image().save(path, transparency=transparency)
    check_pixels(path, on_white(PALETTE[INDICES], np.array(opacities)[INDICES]), steps=1)


def test_a_transparent_colour_of_an_image_without_palette_is_white(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png", transparency=tuple(RGB[1, 2].tolist()))
    Image.fromarray(GRAY).save(tmp_path / "gray.png", transparency=46)
    seen, shades = RGB.copy(), GRAY.copy()
    seen[1, 2], shades[0, 2] = 255, 255
    check_pixels(tmp_path / "rgb.png", planes(seen))
    check_pixels(tmp_path / "gray.png", planes(shades))


INKS = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 0, 0): (255, 0, 255),
        (0, 0, 255, 0): (255, 255, 0), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 155): (100, 100, 100)}


@pytest.mark.parametrize("kind", ["jpg", "tif"])
@pytest.mark.parametrize("ink", INKS, ids=str)
def test_cmyk_is_printed_on_white(tmp_path, kind, ink):
    path = tmp_path / f"a.{kind}"
    Image.new("CMYK", (16, 8), ink).save(path, quality=100)
    check_pixels(path, planes(np.broadcast_to(np.array(INKS[ink]), (8, 16, 3))), steps=3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_of_flat_areas_comes_back(tmp_path, mode):
    pixels = np.kron(RGB if mode == "RGB" else GRAY[:, :, None], np.ones((16, 16, 1), np.uint8)).squeeze()
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    check_pixels(tmp_path / "a.jpg", planes(pixels), steps=4)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_gray_keeps_its_shades(tmp_path, kind):
    Image.fromarray(WORDS).save(tmp_path / f"a.{kind}")
    check_pixels(tmp_path / f"a.{kind}", planes(WORDS / 257), steps=1)


def test_16_bit_gray_of_the_other_byte_order_keeps_its_shades(tmp_path):
    Image.fromarray(WORDS.astype(">u2")).save(tmp_path / "a.tif")
    check_pixels(tmp_path / "a.tif", planes(WORDS / 257), steps=1)
    (tmp_path / "a.pgm").write_bytes(b"P5 5 2 65535\n" + WORDS.astype(">u2").tobytes())
    check_pixels(tmp_path / "a.pgm", planes(WORDS / 257), steps=1)


def test_16_bit_colours_and_opacities_keep_their_shades(tmp_path):
    rgb, alpha = np.dstack([WORDS, WORDS[::-1], WORDS[:, ::-1]]), WORDS[:, ::-1]
    path = tmp_path / "a.png"
    path.write_bytes(png(2, rgb))
    check_pixels(path, planes(rgb / 257), steps=1)
    path.write_bytes(png(6, np.dstack([rgb, alpha])))
    check_pixels(path, on_white(rgb / 257, alpha / 257), steps=2.5)
    path.write_bytes(png(4, np.dstack([WORDS, alpha])))
    check_pixels(path, on_white(WORDS / 257, alpha / 257), steps=2.5)


def test_16_bit_gray_with_a_transparent_shade_is_seen_as_without_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(0, WORDS, (b"tRNS", struct.pack(">H", 32768))))
    check_pixels(path, planes(WORDS / 257), steps=1)


# What the orientations say of the stored rows and columns: EXIF 2.32, tag 274.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),  # row 0 is the left side, column 0 the top
    6: lambda stored: stored[::-1].swapaxes(0, 1),  # row 0 is the right side, column 0 the top
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),  # row 0 is the right side, column 0 the bottom
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),  # row 0 is the left side, column 0 the bottom
}


def orientation(value):
    exif = Image.Exif()
    exif[274] = value
    return exif


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("value", UPRIGHT)
def test_an_image_is_turned_upright(tmp_path, kind, value):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(RGB).save(path, exif=orientation(value))
    check_pixels(path, planes(UPRIGHT[value](RGB)))


@pytest.mark.parametrize("value", UPRIGHT)
def test_a_photograph_is_turned_upright(tmp_path, value):
    pixels = np.kron(RGB, np.ones((16, 16, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=orientation(value))
    check_pixels(tmp_path / "a.jpg", planes(UPRIGHT[value](pixels)), steps=4)


def test_an_image_of_any_kind_is_turned_upright(tmp_path):
    Image.fromarray(WORDS).save(tmp_path / "16.png", exif=orientation(6))
    check_pixels(tmp_path / "16.png", planes(UPRIGHT[6](WORDS) / 257), steps=1)
    palette_image().save(tmp_path / "palette.png", exif=orientation(8), transparency=1)
    check_pixels(
        tmp_path / "palette.png", planes(UPRIGHT[8](np.where(INDICES[..., None] == 1, 255, PALETTE[INDICES])))
    )


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=orientation(9))
    check_pixels(tmp_path / "a.png", planes(RGB))


def test_a_damaged_exif_block_is_passed_over(tmp_path):
    """As some photographs of ImageNet have one; Pillow warns of it."""
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01"
    pixels = np.full((8, 8, 3), 100, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, exif=cut)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_pixels(tmp_path / "a.jpg", planes(pixels), steps=2)
    with pytest.raises(ValueError, match="Corrupt EXIF data"):  # where warnings are errors
        read_rgb(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["gif", "png", "tif", "webp"])
def test_of_many_frames_the_first_is_read(tmp_path, kind):
    frames = [Image.fromarray(np.kron(GRAY, np.ones((2, 2), np.uint8)) // shade) for shade in (1, 2, 3)]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], **options)
    check_pixels(tmp_path / f"a.{kind}", planes(np.kron(GRAY, np.ones((2, 2)))))


def test_the_content_and_not_the_name_tells_the_kind(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", format="PNG")
    check_pixels(tmp_path / "a.jpg", planes(RGB))


SAVED = {"jpg": {}, "png": {}, "gif": {}, "bmp": {}, "ppm": {}, "webp": {}, "tif": {},
         "lzw.tif": {"compression": "tiff_lzw"}}


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_file_that_is_cut_short_is_refused(tmp_path, kind, share):
    path = tmp_path / f"cut.{kind}"
    noise = np.random.default_rng(1).integers(256, size=(40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **SAVED[kind])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    check_refused(path, complaint="is not an image that can be read: ")


@pytest.mark.parametrize("content", [b"", b"\0", b"Dear reader,\n", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    check_refused(path, complaint="is not an image that can be read: ")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp"])
def test_damage_is_refused_or_read_around(tmp_path, kind):
    """Whatever single byte of the beginning is another one, an image comes out or one error with the path."""
    path = tmp_path / f"a.{kind}"
    Image.fromarray(RGB).save(path)
    content, refused = bytearray(path.read_bytes()), 0
    for place in range(min(len(content), 120)):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert read_rgb(path).shape[0] == 3
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path} is not an image that can be read: ")
    assert refused


def test_floating_point_numbers_are_refused(tmp_path):
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "a.tif")
    check_refused(tmp_path / "a.tif", complaint="it holds floating-point numbers, whose black and white nobody knows")


def test_a_file_that_is_not_there(tmp_path):
    missing = tmp_path / "nothing here.png"
    check_refused(missing, FileNotFoundError, f"^there is no image {re.escape(str(missing))}$")
    check_refused(tmp_path / "no folder" / "a.png", FileNotFoundError)


def test_a_folder_is_no_image(tmp_path):
    check_refused(tmp_path)
    (tmp_path / "a.png").touch()
    check_refused(tmp_path / "a.png" / "b.png")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_900)
    check_refused(tmp_path / "a.png", complaint="decompression bomb")


def test_a_large_image_is_read_or_refused_without_a_warning(tmp_path, monkeypatch):
    """Above Pillow's limit, but below the double of it: there Pillow warns."""
    Image.new("RGB", (100, 100), "white").save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_100)
    try:
        assert read_rgb(tmp_path / "a.png").shape == (3, 100, 100)
    except ValueError as error:
        assert str(tmp_path / "a.png") in str(error)


def test_an_image_has_a_limit_of_pixels(tmp_path, monkeypatch):
    Image.new("RGB", (100, 50), "white").save(tmp_path / "a.png")
    monkeypatch.setattr("minidl.data.images.MAX_PIXELS", 5000)
    assert read_rgb(tmp_path / "a.png").shape == (3, 50, 100)
    monkeypatch.setattr("minidl.data.images.MAX_PIXELS", 4999)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    check_refused(tmp_path / "a.png", complaint="it has 100 × 50 pixels; the limit is 4,999")


def test_an_icon_that_holds_a_larger_image_than_it_says_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.ico", sizes=[(64, 64)])
    content = bytearray((tmp_path / "a.ico").read_bytes())
    content[6:8] = 16, 16  # the sizes in its header
    (tmp_path / "a.ico").write_bytes(content)
    monkeypatch.setattr("minidl.data.images.MAX_PIXELS", 1000)
    check_refused(tmp_path / "a.ico")


@pytest.mark.parametrize("error", [
    struct.error("unpack"), zlib.error("x"), EOFError(), MemoryError(), KeyError("x"), IndexError(), OverflowError(),
    RuntimeError("a\nb"), AttributeError(), ZeroDivisionError(), NotImplementedError("DXT"), RecursionError(),
], ids=repr)
def test_any_error_of_pillow_is_one_error_in_one_line(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", fails)
    with pytest.raises(ValueError, match="is not an image that can be read: .") as caught:
        read_rgb(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_a_program_that_draws_is_not_run(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    Image.fromarray(RGB).save(tmp_path / "a.png", format="EPS")
    check_refused(tmp_path / "a.png", complaint="it is EPS: not pixels, but a program")


def test_strips_of_a_large_image_are_the_image(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(WORDS).save(tmp_path / "16.png")
    for pixels in 1, 5, 8, 10:
        monkeypatch.setattr("minidl.data.images._STRIP_PIXELS", pixels)
        check_pixels(tmp_path / "a.png", planes(RGB))
        check_pixels(tmp_path / "16.png", planes(WORDS / 257), steps=1)


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (3, 700)])
def test_a_thin_drawing_keeps_a_row_of_pixels(tmp_path, size):
    drawing = Image.new("L", size, 255)
    drawing.putpixel((0, 0), 0)
    drawing.save(tmp_path / "a.png")
    gray = read_gray(tmp_path / "a.png", 28)
    lines = gray if size[0] > size[1] else gray.T
    assert gray.shape == (28, 28) and (lines.max(axis=1) > 0).sum() == 1 and (lines.max(axis=0) > 0).all()


def test_no_file_stays_open(tmp_path):
    """A file left open is a ResourceWarning, which pytest makes an error, and cannot be removed on Windows."""
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    pixels = read_rgb(path)
    path.write_bytes(b"other")
    np.testing.assert_allclose(pixels, planes(RGB), atol=1e-6)
    check_refused(path)


def test_a_machine_without_pillow_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'minidl[images]'")):
        read_rgb(tmp_path / "a.png")
