"""Pictures show the numbers they were given, and refuse what they cannot show."""

import io
import subprocess
import sys

import numpy as np
import pytest
from cases import mentions

import minidl as dl
from minidl import functional as F
from minidl import nn, plot

pytest.importorskip("matplotlib")

RNG = np.random.default_rng(0)


def shown(picture):
    """The arrays of the images in a picture, in reading order."""
    return [image.get_array().data for axes in picture.axes for image in axes.get_images()]


def drawn(picture):
    """A picture that comes out as PNG, of a size that fits a notebook."""
    png, size = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert 100 <= size["width"] <= 750 and 30 <= size["height"]
    return picture


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (9, 1, 3, 3), (10, 3, 4, 6), (3, 8, 8)], ids=str)
def test_images_are_shown_from_black_to_white_on_one_scale(shape):
    x = RNG.standard_normal(shape)
    tiles = shown(drawn(plot.images(dl.tensor(x), titles=[f"image {i}" for i in range(len(x))])))
    expected = (x - x.min()) / (x.max() - x.min())
    for tile, image in zip(tiles, expected, strict=True):
        image = image[0] if image.ndim == 3 and len(image) == 1 else image
        assert np.allclose(tile, image.transpose(1, 2, 0) if image.ndim == 3 else image)


def test_images_of_one_value_and_none_at_all():
    assert not shown(drawn(plot.images(np.full((1, 1, 2, 2), 7.0))))[0].any()
    assert shown(drawn(plot.images(np.zeros((0, 1, 2, 2))))) == []


def test_filters_in_colour_each_use_the_whole_scale():
    tiles = shown(drawn(plot.filters(RNG.standard_normal((5, 3, 4, 4)))))
    assert len(tiles) == 5 and all(tile.min() == 0 and tile.max() == 1 for tile in tiles)


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (2, 4, 3, 2)], ids=str)
def test_filters_of_other_depths_are_a_tile_each_slice_around_zero(shape):
    picture, weight = drawn(plot.filters(w := RNG.standard_normal(shape))), w.reshape(-1, *shape[2:])
    assert np.array_equal(shown(picture), weight)
    low, high = picture.axes[0].get_images()[0].get_clim()
    assert low == -high == -np.abs(w).max()


def test_feature_maps_of_an_image():
    maps = F.relu(dl.tensor(RNG.standard_normal((1, 6, 4, 3)), requires_grad=True))
    assert np.array_equal(shown(drawn(plot.feature_maps(maps))), maps.data[0])


def test_a_small_heat_map_writes_its_numbers():
    matrix = RNG.standard_normal((3, 4))
    picture = drawn(plot.heatmap(matrix, rows="abc", columns=[1, 2, 3, 4], title="J"))
    texts = [text.get_text() for text in picture.axes[0].texts]
    assert texts == [f"{value:.2g}" for value in matrix.flat]
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert not drawn(plot.heatmap(np.zeros((40, 30)))).axes[0].texts


@pytest.mark.parametrize("options, corner", [
    ({}, (1, 0)), ({"stride": 2, "padding": 1}, (4, 0)), ({"dilation": 2}, (1, 0)),
])
def test_columns_mark_the_pixels_that_the_marked_column_holds(options, corner):
    image = RNG.standard_normal((6, 7))
    picture = drawn(plot.columns(image, (3, 2), window=1 if "stride" not in options else 2, **options))
    left, right = picture.axes
    matrix = F.im2col(dl.tensor(image[None, None]), (3, 2), **options).data[0]
    assert np.array_equal(right.get_images()[0].get_array(), matrix)
    boxes = [patch for patch in left.patches if patch.get_linestyle() == "-"]
    assert len(boxes) == (6 if "dilation" in options else 1)  # one frame, or one around each pixel where they lie apart
    padded, seen = left.get_images()[0].get_array(), []
    for box in boxes:
        x, y = (round(corner + 0.5) for corner in box.get_xy())
        seen.extend(padded[y : y + box.get_height(), x : x + box.get_width()].ravel())
    assert np.array_equal(seen, matrix[:, round(right.patches[0].get_x() + 0.5)])
    assert (boxes[0].get_x() + 0.5, boxes[0].get_y() + 0.5) == corner


def test_the_receptive_fields_are_those_of_the_summary():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.MaxPool2d(2))
    picture = drawn(plot.receptive_field(net, RNG.standard_normal((1, 12, 16))))
    assert [(box.get_height(), box.get_width()) for box in picture.axes[0].patches] == [(3, 3), (5, 5), (6, 6)]
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels == ["0: 3 × 3", "2: 5 × 5", "3: 6 × 6"]


HISTORY = [{"epoch": i, "train_loss": 1 / i**3, "test_loss": 2 / i, "train_accuracy": 1 - 0.5 / i, "test_accuracy": 1.0}
           for i in range(1, 6)]


def test_curves_show_loss_and_error():
    loss, error = drawn(plot.curves(HISTORY, "lenet5 on digits")).axes
    assert [list(line.get_ydata()) for line in loss.get_lines()] == [
        [row["train_loss"] for row in HISTORY], [row["test_loss"] for row in HISTORY]
    ]
    assert np.allclose(error.get_lines()[0].get_ydata(), [50 / i for i in range(1, 6)])
    assert loss.get_yscale() == "log"


def test_curves_of_one_epoch_have_whole_epochs():
    picture = drawn(plot.curves(HISTORY[:1]))
    assert picture.get_suptitle() == "100.0% of the test images right after 1 epoch"
    assert all(tick == round(tick) for axes in picture.axes for tick in axes.get_xticks())


def test_a_frame_has_a_rim_that_shows_without_colours():
    """The mark is as bright as the grey of 0."""
    import matplotlib

    image = np.zeros((8, 8))
    png = io.BytesIO(drawn(plot.columns(image, 3, window=9))._repr_png_()[0])
    pixels = matplotlib.image.imread(png)
    middle = pixels[len(pixels) // 2, : pixels.shape[1] // 3]
    grey = middle[middle[:, 3] == 1, :3] @ [0.299, 0.587, 0.114]
    assert np.ptp(grey) > 0.3


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_are_saved_as_a_png_file(tmp_path, epochs):
    image = pytest.importorskip("PIL.Image")
    plot.curves(HISTORY[:epochs], "lenet5 on digits").save(tmp_path / "curves.png")
    with image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 2 * picture.height > 400
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_lines_bars_and_functions():
    lines = drawn(plot.lines({"a": dl.tensor([1.0, 2.0, 4.0]), "b": [1, 10, 100]}, log=True)).axes[0]
    assert [list(line.get_ydata()) for line in lines.get_lines()] == [[1, 2, 4], [1, 10, 100]]
    styles = {(line.get_linestyle(), line.get_marker()) for line in lines.get_lines()}
    assert len(styles) == 2  # told apart without colours
    bars = drawn(plot.bars(["conv1", "fc"], {"parameters": [1, 9], "multiply-adds": [8, 2]})).axes[0]
    assert [bar.get_height() for bar in bars.patches] == [1, 9, 8, 2]
    curve = drawn(plot.function({"square": lambda z: z * z}, (-1, 1))).axes[0].get_lines()[0]
    assert np.allclose(curve.get_ydata(), np.linspace(-1, 1, 401) ** 2)


@pytest.mark.parametrize("draw, values", [
    (lambda: plot.images(np.zeros((2, 4, 3, 3))), ["(2, 4, 3, 3)", "(N, H, W)"]),
    (lambda: plot.images(np.zeros((2, 3, 3)), titles=["one"]), [2, 1]),
    (lambda: plot.filters(np.zeros((3, 3))), ["(3, 3)", "(K, C, KH, KW)"]),
    (lambda: plot.feature_maps(np.zeros((2, 3, 4, 4))), ["(2, 3, 4, 4)", "one image"]),
    (lambda: plot.heatmap(np.zeros(3)), ["(3,)"]),
    (lambda: plot.columns(np.zeros((4, 4)), 3, window=4), [4]),
    (lambda: plot.columns(np.zeros((3, 4, 4)), 3), ["(3, 4, 4)", "one channel"]),
    (lambda: plot.columns(np.zeros(4), 3), ["(4,)"]),
])
def test_what_cannot_be_shown_is_refused(draw, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        draw()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "minidl.plot.picture"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"drawing needs matplotlib.*; run: pip install 'minidl\[plot\]'"):
        plot.curves(HISTORY)


def test_matplotlib_is_imported_by_the_first_picture_only():
    code = "import sys; from minidl import plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_picture_is_kept_by_pyplot():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot.lines({"a": [1.0, 2.0]}).savefig(io.BytesIO(), format="png")
    assert pyplot.get_fignums() == before


# What the experiment about depth measured

def table(networks=("plain20", "plain56", "resnet20", "resnet56"), seeds=2, epochs=3):
    return [
        {"network": name, "seed": seed, "epoch": epoch, "train_error": RNG.random(), "test_error": RNG.random()}
        for name in networks for seed in range(seeds) for epoch in range(1, epochs + 1)
    ]


def test_a_loss_of_many_decades_is_numbered_by_tens():
    history = [{**HISTORY[0], "epoch": epoch, "test_loss": 10.0 ** (9 - 2 * epoch)} for epoch in range(1, 5)]
    loss, _ = drawn(plot.curves(history)).axes
    assert loss.get_yscale() == "log"
    assert all(np.log10(place) == pytest.approx(round(np.log10(place))) for place in loss.get_yticks())


def test_errors_by_depth_are_the_means_over_the_seeds_and_a_band():
    rows = table()
    picture = drawn(plot.errors_by_depth(rows, "CIFAR-10"))
    plain, residual = picture.axes
    assert (plain.get_title(), residual.get_title()) == ("plain", "residual")
    for axes, kind in ((plain, "plain"), (residual, "resnet")):
        lines = iter(axes.get_lines())
        for depth in (20, 56):
            for part in ("train", "test"):
                errors = np.array([[row[f"{part}_error"] for row in rows
                                    if (row["network"], row["seed"]) == (f"{kind}{depth}", seed)] for seed in (0, 1)])
                line = next(lines)
                assert np.allclose(line.get_ydata(), 100 * errors.mean(axis=0))
                assert line.get_label() == f"{depth} layers, {'training' if part == 'train' else 'test'}"
        assert len(axes.collections) == 4  # the bands
    assert not drawn(plot.errors_by_depth(table(seeds=1))).axes[0].collections


def test_errors_by_depth_end_where_the_seed_that_is_behind_does():
    rows = table(("resnet20",), seeds=1) + [{**row, "seed": 1} for row in table(("resnet20",), seeds=1, epochs=2)]
    (axes,) = drawn(plot.errors_by_depth(rows)).axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[1, 2]] * 2


def test_gradients_by_depth_are_shown_at_the_start_half_way_and_at_the_end():
    rows = [{"network": name, "seed": seed, "epoch": epoch, "layer": str(layer), "norm": float(2 ** (layer + seed))}
            for name in ("plain20", "resnet20") for seed in (0, 2) for epoch in range(6) for layer in range(4)]
    panels = drawn(plot.gradients_by_depth(rows)).axes
    assert [axes.get_title() for axes in panels] == ["at the start", "after epoch 2", "after epoch 5"]
    for axes in panels:
        assert [line.get_label() for line in axes.get_lines()] == ["plain20", "resnet20"]
        assert np.allclose(axes.get_lines()[0].get_ydata(), [2, 4, 8, 16])  # geometric: 2 to the layer + 1


def test_a_layer_that_no_gradient_reaches_leaves_a_gap():
    rows = [{"network": "plain20", "seed": 0, "epoch": 0, "layer": f"conv{norm}", "norm": norm} for norm in (0.0, 1.0)]
    (axes,) = drawn(plot.gradients_by_depth(rows)).axes
    assert list(axes.get_lines()[0].get_ydata()) == [0, 1]


@pytest.mark.parametrize("draw", [plot.errors_by_depth, plot.gradients_by_depth])
def test_no_rows_are_refused(draw):
    with pytest.raises(ValueError, match="there are no rows to draw"):
        draw([])


def test_a_network_without_a_depth_is_refused():
    with pytest.raises(ValueError, match="must end in its depth, as resnet20; got 'lenet'"):
        plot.errors_by_depth(table(("lenet",)))
