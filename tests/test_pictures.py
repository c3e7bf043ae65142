"""Pictures and masks in every form that people have them in; what is right is written down, not read back."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from vqlearn import plots, scenes
from vqlearn.data.folder import PictureFolder
from vqlearn.data.pictures import convert, rgb, sizes, to_tensor, touched

SIDE = 8
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(colors=(RED, GREEN, BLUE, WHITE), side=SIDE, width=None):
    """uint8 `[side, width, C]`: four quarters, upper left, upper right, lower left, lower right."""
    width, bands = width or side, len(np.atleast_1d(colors[0]))
    pixels = np.zeros((side, width, bands), np.uint8)
    for number, color in enumerate(colors):
        row, col = divmod(number, 2)
        rows, cols = slice(row * side // 2, (row + 1) * side // 2), slice(col * width // 2, (col + 1) * width // 2)
        pixels[rows, cols] = color
    return pixels


def wanted(colors, side=SIDE):
    """What `to_tensor` must give for quarters of these colours (0 ... 255): `[1, 3, side, side]`."""
    pixels = np.zeros((side, side, 3))
    half = side // 2
    pixels[:half, :half], pixels[:half, half:], pixels[half:, :half], pixels[half:, half:] = colors
    return torch.from_numpy(pixels / 255 * 2 - 1).permute(2, 0, 1)[None].float()


def saved(image, kind="PNG", **options):
    """An image as it comes from a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


PICTURE = quarters()
AS_IMAGE = Image.fromarray(PICTURE)
SHOWN = (RED, GREEN, BLUE, WHITE)
BLACKS = ((0, 0, 0), WHITE, WHITE, (0, 0, 0))
PALETTE = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8).repeat(4, 0).repeat(4, 1), "P")
PALETTE.putpalette([*RED, *GREEN, *BLUE, *WHITE])
CLEAR = np.dstack([PICTURE, quarters((255, 0, 51, 255))])  # alpha 1, 0, 0.2, 1
ON_WHITE, ON_BLACK = (RED, WHITE, (204, 204, 255), WHITE), (RED, (0, 0, 0), (0, 0, 51), WHITE)
CHECKS = quarters((0, 255, 255, 0))[..., 0]
LAB = quarters(((0, 0, 0), (255, 0, 0), (128, 0, 0), (200, 0, 0)))  # L* 0, 100, 50.2, 78.4
DEEP = np.array([[0, 65535], [32896, 257]], np.uint16).repeat(4, 0).repeat(4, 1)  # in eight bits 0, 255, 128, 1
DEEP_SHOWN = [(value,) * 3 for value in (0, 255, 128, 1)]


SEEN = {
    "RGB": (AS_IMAGE, SHOWN),
    "palette": (PALETTE, SHOWN),
    "palette of a GIF": (saved(PALETTE, "GIF"), SHOWN),
    "RGBX": (AS_IMAGE.convert("RGBX"), SHOWN),
    "CMYK": (saved(AS_IMAGE.convert("CMYK"), "TIFF"), SHOWN),
    "HSV": (AS_IMAGE.convert("HSV"), SHOWN),
    "one bit": (saved(Image.fromarray(CHECKS).convert("1")), BLACKS),
    "L": (Image.fromarray(CHECKS), BLACKS),
    "two bits": (saved(Image.fromarray(CHECKS).quantize(2), bits=2), BLACKS),
    "PNG of 16 bits": (saved(Image.fromarray(DEEP)), DEEP_SHOWN),
    "TIFF of 16 bits": (saved(Image.fromarray(DEEP), "TIFF"), DEEP_SHOWN),
    "TIFF of 16 bits, the other end first": (saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"), DEEP_SHOWN),
    "PGM of 16 bits, mode I": (saved(Image.fromarray(DEEP.astype(np.int32)), "PPM"), DEEP_SHOWN),
    "floats": (saved(Image.fromarray((DEEP / 65535).astype(np.float32)), "TIFF"), DEEP_SHOWN),
    "RGBA, opaque": (AS_IMAGE.convert("RGBA"), SHOWN),
    "RGBA": (saved(Image.fromarray(CLEAR)), ON_WHITE),
    "RGBa": (Image.fromarray(CLEAR).convert("RGBa"), ON_WHITE),
    "LA": (Image.fromarray(CLEAR[..., [0, 3]]), (WHITE, WHITE, (204,) * 3, WHITE)),
    "La": (Image.fromarray(CLEAR[..., [0, 3]]).convert("La"), (WHITE, WHITE, (204,) * 3, WHITE)),
    "PA": (Image.fromarray(CLEAR).convert("PA"), ON_WHITE),
    "palette, a colour is clear": (saved(PALETTE, transparency=0), (WHITE, GREEN, BLUE, WHITE)),
    "RGB, a colour is clear": (saved(AS_IMAGE, transparency=GREEN), (RED, WHITE, BLUE, WHITE)),
    "16 bits, a grey is clear": (saved(Image.fromarray(DEEP), transparency=32896),
                                 [(value,) * 3 for value in (0, 255, 255, 1)]),
    "JPEG": (saved(AS_IMAGE, "JPEG", quality=100, subsampling=0), SHOWN),
    "WebP with alpha": (saved(Image.fromarray(CLEAR), "WEBP", lossless=True, exact=True), ON_WHITE),
    "L*a*b* of a TIFF": (saved(Image.fromarray(LAB, "LAB"), "TIFF"), [(0,) * 3, (255,) * 3, (119,) * 3, (194,) * 3]),
    "uint8": (PICTURE, SHOWN),
    "a masked array": (np.ma.masked_array(CHECKS), BLACKS),
    "uint8 with alpha": (CLEAR, ON_WHITE),
    "uint8, grey": (CHECKS, BLACKS),
    "uint8, grey [H, W, 1]": (CHECKS[..., None], BLACKS),
    "uint8, grey with alpha": (CLEAR[..., [0, 3]], (WHITE, WHITE, (204,) * 3, WHITE)),
    "a view from the right to the left": (PICTURE[:, ::-1], (GREEN, RED, WHITE, BLUE)),
    "bool": (CHECKS > 0, BLACKS),
    "uint16": (DEEP, DEEP_SHOWN),
    "uint16, the other end first": (DEEP.astype(">u2"), DEEP_SHOWN),
    "float64": (PICTURE / 255, SHOWN),
    "float16 with alpha": ((CLEAR / 255).astype(np.float16), ON_WHITE),
    "tensor": (wanted(SHOWN), SHOWN),
    "tensor [3, H, W] in bfloat16": (wanted(SHOWN)[0].bfloat16(), SHOWN),
    "tensor uint8": (torch.from_numpy(PICTURE).permute(2, 0, 1), SHOWN),
    "tensor with a gradient": (wanted(SHOWN).requires_grad_(), SHOWN),
}  # fmt: skip


@pytest.mark.parametrize("form", SEEN)
def test_a_picture_is_what_is_seen(form):
    image, shown = SEEN[form]
    found = to_tensor(image, SIDE)
    assert found.dtype == torch.float32 and not found.requires_grad
    near = {
        "JPEG": 3.1 / 127.5,
        "L*a*b* of a TIFF": 1.1 / 127.5,
        "float16 with alpha": 2e-3,
        "tensor [3, H, W] in bfloat16": 1e-2,
    }.get(form, 1e-6)
    torch.testing.assert_close(found, wanted(shown), atol=near, rtol=0)


def test_the_background_is_a_choice():
    for color in ("black", (0, 0, 0), [0, 0, 0], "#000"):
        torch.testing.assert_close(to_tensor(CLEAR, SIDE, background=color), wanted(ON_BLACK), atol=1e-6, rtol=0)
    for wrong in ("no colour", (0, 0), (0, 0, 256), 5, None, (0.5, 0, 0)):
        with pytest.raises(ValueError, match="background must be a colour, such as 'white' or"):
            to_tensor(CLEAR, SIDE, background=wrong)


@pytest.mark.parametrize(
    "background", [None, 3, "", "no colour", (1, 2), (0, 0, 256), (0.5, 0, 0), "white black", [[]], -1]
)
def test_a_background_is_a_colour_whether_it_is_seen_or_not(background, tmp_path):
    AS_IMAGE.save(tmp_path / "a.png")
    for image in (AS_IMAGE, wanted(SHOWN), PICTURE, [Image.fromarray(CLEAR)]):
        with pytest.raises(ValueError, match=r"^background must be a colour"):
            to_tensor(image, SIDE, background=background)
    with pytest.raises(ValueError, match=r"^background must be a colour"):
        PictureFolder(tmp_path, SIDE, background=background)


def test_pictures_in_one_byte_keep_their_bytes():
    assert rgb(AS_IMAGE).dtype == np.uint8 and np.array_equal(rgb(AS_IMAGE), PICTURE)
    assert np.array_equal(rgb(AS_IMAGE.convert("RGBA")), PICTURE)


UPRIGHT = quarters((RED, GREEN, BLUE, (0, 0, 0)), 4, 8)  # what is seen, wider than high
STORED = {
    1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1], 5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1], 7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_as_its_file_says(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation == 6:  # the camera was turned: what is above is stored on the left
        assert tuple(STORED[6][-1, 0]) == RED and tuple(STORED[6][0, 0]) == GREEN
    options = {"lossless": True} if kind == "WEBP" else {}
    image = saved(Image.fromarray(np.ascontiguousarray(STORED[orientation])), kind, exif=exif, **options)
    assert np.array_equal(rgb(image), UPRIGHT)
    assert np.array_equal(rgb(image), UPRIGHT) and sizes(image) == {(8, 4)}  # again, now that it has been read


def test_damaged_exif_data_leave_the_picture_as_it_is():
    for data in (
        b"Exif\0\0nothing",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40,
    ):
        assert np.array_equal(rgb(saved(AS_IMAGE, exif=data)), PICTURE)


def profile(space, curve, **primaries):
    """An ICC profile (version 2) of a colour space with a tone curve, as its specification has it."""
    numbers = {
        name: struct.pack(">4s4x3i", b"XYZ ", *(round(x * 65536) for x in xyz)) for name, xyz in primaries.items()
    }
    tags = {**numbers, **dict.fromkeys(["kTRC"] if space == "GRAY" else ["rTRC", "gTRC", "bTRC"], curve)}
    place, table, content = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += struct.pack(">4s2I", name.encode(), place + len(content), len(value))
        content += value
    white = (round(x * 65536) for x in (0.9642, 1, 0.8249))  # D50
    head = struct.pack(">I4xI4s4s4s12x4s28x3i48x", place + len(content), 0x02400000, b"mntr", space.encode().ljust(4),
                       b"XYZ ", b"acsp", *white)  # fmt: skip
    return head + struct.pack(">I", len(tags)) + table + content


LINEAR = struct.pack(">4s4xI", b"curv", 0)
SRGB = {"rXYZ": (0.4361, 0.2225, 0.0139), "gXYZ": (0.3851, 0.7169, 0.0971), "bXYZ": (0.1431, 0.0606, 0.7141)}
TURNED = {"rXYZ": SRGB["gXYZ"], "gXYZ": SRGB["bXYZ"], "bXYZ": SRGB["rXYZ"]}  # "red" is green, and so on


def shown_of(linear):
    """sRGB's code value of a share of light (IEC 61966-2-1)."""
    return 255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


COLOURS = ((200, 100, 30), (30, 200, 100), (10, 10, 250), (128, 128, 128))
LIGHT = Image.fromarray(quarters(COLOURS))
TURNED_LIGHT = [tuple(shown_of(v / 255) for v in (b, r, g)) for r, g, b in COLOURS]
GREYS = Image.fromarray(quarters((0, 60, 128, 255))[..., 0])
GREY_LIGHT = [(shown_of(v / 255),) * 3 for v in (0, 60, 128, 255)]
HALF = quarters((255, 255, 255, 0))
PROFILES = {
    "PNG": (saved(LIGHT, icc_profile=profile("RGB", LINEAR, **TURNED)), TURNED_LIGHT),
    "TIFF": (saved(LIGHT, "TIFF", icc_profile=profile("RGB", LINEAR, **TURNED)), TURNED_LIGHT),
    "JPEG": (saved(LIGHT, "JPEG", quality=100, subsampling=0, icc_profile=profile("RGB", LINEAR, **TURNED)),
             TURNED_LIGHT),
    "WebP": (saved(LIGHT, "WEBP", lossless=True, icc_profile=profile("RGB", LINEAR, **TURNED)), TURNED_LIGHT),
    "palette": (saved(LIGHT.quantize(4), icc_profile=profile("RGB", LINEAR, **TURNED)), TURNED_LIGHT),
    "alpha": (saved(Image.fromarray(np.dstack([LIGHT, HALF])), icc_profile=profile("RGB", LINEAR, **TURNED)),
              [*TURNED_LIGHT[:3], WHITE]),
    "a colour is clear": (saved(LIGHT, transparency=COLOURS[3], icc_profile=profile("RGB", LINEAR, **TURNED)),
                          [*TURNED_LIGHT[:3], WHITE]),
    "grey": (saved(GREYS, icc_profile=profile("GRAY", LINEAR)), GREY_LIGHT),
    "grey with alpha": (saved(Image.merge("LA", [GREYS, Image.fromarray(HALF[..., 0])]),
                              icc_profile=profile("GRAY", LINEAR)), GREY_LIGHT),
    "grey of 16 bits": (saved(Image.fromarray(np.asarray(GREYS).astype(np.uint16) * 257),
                              icc_profile=profile("GRAY", LINEAR)), GREY_LIGHT),
    "sRGB": (saved(LIGHT, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), COLOURS),
    "damaged": (saved(LIGHT, icc_profile=profile("RGB", LINEAR, **TURNED)[:200]), COLOURS),
    "noise": (saved(LIGHT, icc_profile=b"\xff" * 1000), COLOURS),
    "of other colours": (saved(LIGHT, icc_profile=profile("GRAY", LINEAR)), COLOURS),
    "16 bits, a grey is clear": (saved(Image.fromarray(DEEP), transparency=32896, icc_profile=profile("GRAY", LINEAR)),
                                 [(value,) * 3 for value in (0, 255, 255, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("form", PROFILES)
def test_colours_are_those_that_the_profile_of_the_file_means(form):
    image, shown = PROFILES[form]
    assert image.info["icc_profile"]
    exact = {"sRGB", "damaged", "noise", "of other colours", "16 bits, a grey is clear"}
    near = 6 if form == "JPEG" else 0.01 if form in exact else 1.6  # 8 bits
    torch.testing.assert_close(to_tensor(image, SIDE), wanted(shown), atol=near / 127.5, rtol=0)


def test_lists_and_batches_are_read_one_by_one():
    found = to_tensor([AS_IMAGE, CHECKS, wanted(BLACKS), PICTURE / 255], SIDE)
    torch.testing.assert_close(found, torch.cat([wanted(SHOWN), *[wanted(BLACKS)] * 2, wanted(SHOWN)]))
    torch.testing.assert_close(to_tensor(np.stack([PICTURE, PICTURE[::-1]]), SIDE)[0:1], wanted(SHOWN))
    assert to_tensor(convert(wanted(SHOWN).expand(3, -1, -1, -1), "np"), SIDE).shape == (3, 3, SIDE, SIDE)


def test_what_is_written_is_read_again():
    for form in ("pil", "np"):
        torch.testing.assert_close(to_tensor(convert(wanted(ON_WHITE), form)[0], SIDE), wanted(ON_WHITE))


@pytest.mark.parametrize("form", ["pil", "np", "pt"])
def test_what_is_not_finite_is_no_picture(form):
    with pytest.raises(ValueError, match="the codec has given values that are not finite"):
        convert(torch.tensor([0.0, torch.nan]).expand(1, 3, 2, 2), form)


# ------------------------------------------------------------------------------------------ another size


@pytest.mark.parametrize("form", ["image", "16 bits", "clear", "uint8", "floats", "tensor", "bytes"])
def test_resizing_takes_the_middle_and_means(form):
    """Two quarters wide, each 3 x 3 block a mean of known values, between edges that are cut off."""
    blocks = torch.arange(SIDE * SIDE).view(SIDE, SIDE).double() * 3  # the means
    large = blocks.repeat_interleave(3, 0).repeat_interleave(3, 1)
    large[::3, ::3] += 9
    large[1::3, 1::3] -= 9  # in each block
    large = np.pad(
        large.clamp(0, 255).numpy(), ((0, 0), (7, 8)), constant_values=77
    )  # cut: 7 on the left, 8 on the right
    means = torch.from_numpy(large[:, 7:-8].reshape(SIDE, 3, SIDE, 3).mean((1, 3)))
    colours = np.repeat(large[..., None], 3, -1)
    image = {
        "image": lambda: Image.fromarray(colours.astype(np.uint8)),
        "16 bits": lambda: Image.fromarray((large * 257).astype(np.uint16)),
        "clear": lambda: np.dstack([np.zeros_like(colours), 255 - large]).astype(np.uint8),  # black, as clear as bright
        "uint8": lambda: large.astype(np.uint8),
        "floats": lambda: colours / 255,
        "tensor": lambda: torch.from_numpy(colours).permute(2, 0, 1) / 127.5 - 1,
        "bytes": lambda: torch.from_numpy(colours.astype(np.uint8)).permute(2, 0, 1),
    }[form]()
    found = to_tensor(image, SIDE, resize=True)
    expected = (means / 127.5 - 1).float().expand(1, 3, -1, -1)
    torch.testing.assert_close(found, expected, atol=0.51 / 127.5, rtol=0)


def test_an_enlarged_picture_comes_back_bit_for_bit():
    for factor in (2, 3, 8):
        large = AS_IMAGE.resize((SIDE * factor,) * 2, resample=0)
        assert torch.equal(to_tensor(large, SIDE, resize=True), to_tensor(AS_IMAGE, SIDE))
    small = Image.fromarray(PICTURE[::4, ::4])
    assert torch.equal(to_tensor(small, SIDE, resize=True), to_tensor(AS_IMAGE, SIDE))


def test_a_picture_of_another_size_is_refused_before_it_is_decoded(monkeypatch):
    image = broken(9000)
    for name in ("load", "convert", "getexif"):
        monkeypatch.setattr(Image.Image, name, lambda *_, **__: pytest.fail("it was decoded"))
    monkeypatch.setattr(type(image), "load", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(
        ValueError, match="image must be 8 x 8 pixels, got 9000 x 9000; resize=True takes the square in"
    ):
        to_tensor(image, SIDE)
    with pytest.raises(ValueError, match=r"mask must be a PIL image of 8 x 8 pixels, .*, got 9000 x 9000 pixels"):
        touched(image, 2, 4)


def broken(side=SIDE):
    """A PNG whose data end early."""

    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return Image.open(
        io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"\0" * 10)) + part(b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ([], "image must be a picture or a list of them, got an empty list"),
        ("photo.png", "image must be a PIL image or float .*, got str"),
        (None, "image must be a PIL image or float .*, got NoneType"),
        (torch.zeros(8, 8), r"got torch.float32 \[8, 8\]"),
        (torch.zeros(8, 8, 3), r"got torch.float32 \[8, 8, 3\]"),
        (torch.zeros(0, 3, 8, 8), r"got torch.float32 \[0, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"got torch.int64 \[3, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), r"got torch.complex64"),
        (torch.zeros(3, 8, 8, device="meta"), r"got torch.float32 \[3, 8, 8\]"),
        (torch.zeros(3, 8, 8).to_sparse(), r"got torch.float32 \[3, 8, 8\]"),
        ("nested", "got a nested tensor"),
        (np.zeros((8, 8), np.int64), r"got int64 \[8, 8\]"),
        (np.zeros((3, 8, 8), np.uint8), r"got uint8 \[3, 8, 8\]"),
        (np.zeros((8, 8, 5), np.uint8), r"got uint8 \[8, 8, 5\]"),
        (np.zeros((8, 8, 3), object), r"got object \[8, 8, 3\]"),
        (Image.new("RGB", (0, 8)), "got 0 x 8 pixels"),
        (Image.new("RGB", (8, 9)), "image must be 8 x 8 pixels, got 8 x 9; resize=True"),
        (torch.full((3, 8, 8), 1.01), r"image must lie in \[-1, 1\], got values from 1.01 to 1.01"),
        (torch.full((3, 8, 8), 255.0), r"image must lie in \[-1, 1\], got values from 255 to 255"),
        (torch.full((3, 8, 8), torch.nan), "image must be finite numbers, got some that are not"),
        (torch.full((3, 8, 8), -torch.inf), "image must be finite numbers, got some that are not"),
        (np.full((8, 8, 3), -1.0), r"image must lie in \[0, 1\], got values from -1 to -1"),
        (np.full((8, 8, 3), np.nan), "image must be finite numbers, got some that are not"),
        (Image.fromarray(np.full((8, 8), 200, np.float32)), r"image must lie in \[0, 1\], got values from 200 to 200"),
        (Image.fromarray(np.full((8, 8), 200, np.int32)), "image has 32-bit values from 200 to 200, and which of"),
        (Image.fromarray(np.full((8, 8), -5, np.int32)), "image has 32-bit values from -5 to -5"),
        (broken(), "image cannot be decoded: "),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_in_one_sentence(image, sentence):
    if sentence == "got a nested tensor":  # made here: torch imports its compiler for it, which takes seconds
        image = torch.nested.nested_tensor([torch.zeros(3, 8, 8)], layout=torch.jagged)
    with pytest.raises(ValueError, match=sentence) as error:
        to_tensor(image, SIDE)
    assert "\n" not in str(error.value)


def test_rounding_outside_the_range_is_no_error():
    assert to_tensor(torch.full((3, 8, 8), 1 + 1e-6), SIDE).max() == 1


def test_resize_is_yes_or_no():
    with pytest.raises(ValueError, match="resize must be True or False, got 64"):
        to_tensor(AS_IMAGE, SIDE, resize=64)


# ------------------------------------------------------------------------------------------ masks

# of 4 x 4 squares of 2 x 2 pixels the upper right quarter, and one pixel in the lower left corner
MARKED = np.zeros((8, 8), bool)
MARKED[:4, 4:] = MARKED[7, 0] = True
CELLS = np.zeros((4, 4), bool)
CELLS[:2, 2:] = CELLS[3, 0] = True
MARKS = MARKED.astype(np.uint8) * 255
PAINT = np.dstack([np.full((8, 8, 3), 255, np.uint8), MARKS])  # white paint on nothing
SHADOW = np.dstack([np.full((8, 8, 3), 255, np.uint8), MARKS // 4])


MASKS = {
    "bool": torch.from_numpy(MARKED),
    "array": MARKED,
    "uint8": MARKS,
    "tensor uint8": torch.from_numpy(MARKS),
    "L": Image.fromarray(MARKS),
    "1": Image.fromarray(MARKED),
    "RGB": Image.fromarray(MARKS).convert("RGB"),
    "P": Image.fromarray(MARKS).convert("P"),
    "CMYK": Image.fromarray(MARKS).convert("CMYK"),
    "white paint on nothing": saved(Image.fromarray(PAINT)),
    "LA": Image.fromarray(PAINT).convert("LA"),
    "PA": Image.fromarray(PAINT).convert("PA"),
    "array with alpha": PAINT,
    "the darker half is not marked": Image.fromarray(np.where(MARKED, 128, 127).astype(np.uint8)),
    "16 bits over a floor of 3 %": saved(Image.fromarray(np.where(MARKED, 65535, 1966).astype(np.uint16))),
    "16 bits, the darker half": saved(Image.fromarray(np.where(MARKED, 32768, 32767).astype(np.uint16)), "TIFF"),
    "mode I": Image.fromarray(MARKED.astype(np.int32) * 65535),
    "a colour that is clear": saved(Image.fromarray(255 - MARKS // 5), transparency=255),
    "turned": saved(Image.fromarray(np.ascontiguousarray(MARKS.T[::-1])), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
                    b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}  # fmt: skip


@pytest.mark.parametrize("form", MASKS)
def test_a_mask_marks_what_is_white(form):
    found = touched(MASKS[form], 4, 2)
    assert found.dtype == torch.bool and np.array_equal(found.view(4, 4), CELLS)


def test_paint_that_is_nearly_clear_marks_nothing():
    assert not touched(Image.fromarray(SHADOW), 4, 2).any()
    assert not touched(np.zeros((8, 8), np.uint8), 4, 2).any()


@pytest.mark.parametrize("kind", ["tensor", "half", "array", "image"])
def test_a_mask_of_floats_says_how_much(kind):
    """The most of any pixel of a square."""
    values = torch.linspace(0, 1, 64).view(8, 8)
    mask = {"tensor": values, "half": values.half(), "array": values.double().numpy(),
            "image": Image.fromarray(values.numpy())}[kind]  # fmt: skip
    found = touched(mask, 4, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.view(4, 4), values[1::2, 1::2], atol=1e-3, rtol=0)


def test_one_mask_per_picture():
    none, rows = np.zeros_like(MARKED), torch.from_numpy(np.stack([CELLS, ~CELLS & False])).flatten(1)
    for several in (
        np.stack([MARKED, none]),
        torch.from_numpy(np.stack([MARKED, none])),
        torch.from_numpy(np.stack([MARKED, none])).byte() * 255,
        [Image.fromarray(MARKS), Image.fromarray(none)],
        (MARKED, torch.from_numpy(none)),
        [torch.from_numpy(MARKED)[None], none],
    ):
        assert torch.equal(touched(several, 4, 2), rows)
    assert torch.equal(
        touched(torch.stack([torch.from_numpy(MARKED)] * 2).float(), 4, 2), rows[:1].expand(2, -1).float()
    )


def test_a_mask_of_the_size_of_a_picture_that_is_resized_is_cut_like_it():
    wide = np.pad(MARKED, ((0, 0), (3, 3)), constant_values=True).repeat(5, 0).repeat(5, 1)
    assert sizes(Image.fromarray(wide)) == sizes(wide) == sizes([torch.zeros(3, 40, 70)]) == {(70, 40)}
    for mask in (wide, torch.from_numpy(wide), Image.fromarray(wide)):
        assert np.array_equal(touched(mask, 4, 2, sizes={(70, 40)}).view(4, 4), CELLS)
    assert np.array_equal(touched(MARKED, 4, 2, sizes={(70, 40)}).view(4, 4), CELLS)
    with pytest.raises(ValueError, match=r"of 8 x 8 or 71 x 40 pixels, .* bool \[8, 8\], got bool \[40, 70\]"):
        touched(wide, 4, 2, sizes={(71, 40)})


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ([], "mask must be a mask or a list of them, got an empty list"),
        ("left", "mask must be a PIL image of 8 x 8 pixels, .*, got str"),
        (torch.zeros(8, 8, dtype=torch.int64), r"got torch.int64 \[8, 8\]"),
        (torch.zeros(16, 16, dtype=torch.bool), r"got torch.bool \[16, 16\]"),
        (torch.zeros(1, 1, 8, 8), r"got torch.float32 \[1, 1, 8, 8\]"),
        (torch.zeros(0, 8, 8), r"got torch.float32 \[0, 8, 8\]"),
        (np.zeros((8, 8), np.int32), r"got int32 \[8, 8\]"),
        (np.zeros(8, bool), r"got bool \[8\]"),
        (np.zeros((0, 8, 8), bool), r"got bool \[0, 8, 8\]"),
        (np.ones((8, 8), np.uint8), "mask is at most 1 of 255 bright, so it marks nothing; mark with 255, or make it"),
        (torch.ones(8, 8, dtype=torch.uint8), "mask is at most 1 of 255 bright"),
        (torch.full((8, 8), 255.0), r"mask must lie in \[0, 1\], got values from 255 to 255"),
        (torch.full((8, 8), torch.nan), "mask must be finite numbers"),
        (Image.fromarray(np.full((8, 8), 255, np.int32)), "mask has 32-bit values from 255 to 255"),
        (broken(), "mask cannot be decoded: "),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused_in_one_sentence(mask, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        touched(mask, 4, 2)
    assert "\n" not in str(error.value)


def test_a_photo_and_a_mask_per_picture_reach_the_pipeline(shipped, seeded):
    """Twice as large and wider than the codec's pictures: the tokens are those of the middle, and known ones stay."""
    side = 32
    small = torch.rand(side, side, 3, generator=seeded(0)).mul(255).byte().numpy()
    wide = np.pad(small, ((0, 0), (5, 5), (0, 0))).repeat(2, 0).repeat(2, 1)
    marked = np.zeros((2, 64, 84), bool)
    marked[0, :, :42] = marked[1, :32] = True  # the left half, the upper half
    x_0 = shipped.encode(to_tensor(small, side))
    call = {"prompt": "a small star", "num_inference_steps": 2, "output_type": "latent", "generator": seeded(1)}
    drawn = shipped.inpaint(Image.fromarray(wide), list(marked), resize=True, num_images_per_prompt=2, **call).images
    kept = torch.zeros(2, 8, 8, dtype=torch.bool)
    kept[0, :, 4:] = kept[1, 4:] = True
    assert torch.equal(drawn[kept.view(2, 64)], x_0.expand(2, -1)[kept.view(2, 64)])
    assert (drawn != x_0)[~kept.view(2, 64)].any(), "all others are drawn anew"
    for wrong, sentence in (
        (torch.full((1, 3, 32, 32), 2.0), "images must lie in"),
        (wide, "images must be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            shipped.encode(wrong)
    with pytest.raises(ValueError, match=r"mask must be one or 2 \(one per picture\), got 3"):
        shipped.inpaint(small, [marked[0, :32, :32]] * 3, num_images_per_prompt=2, **call)
    assert shipped.encode(torch.zeros(0, 3, 32, 32)).shape == (0, 64)


def test_scenes_and_figures_take_every_mode():
    scene, _ = scenes.sample("test", 0)
    drawn = scenes.draw(scene)
    for image in (
        Image.fromarray(drawn).quantize(64),
        Image.fromarray(drawn).convert("RGBA"),
        saved(Image.fromarray(drawn)),
    ):
        assert scenes.read(image) == scene
    shown = plots.strip([PALETTE, AS_IMAGE, PICTURE])
    first, second, third = (ax.images[0].get_array() for ax in shown.axes)
    assert np.array_equal(first, PICTURE) and np.array_equal(second, PICTURE) and np.array_equal(third, PICTURE)
