"""Reads photos with an exported run: python read_onnx.py run.onnx photo.jpg …"""

import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["about"])
photo, labels = about["photo"], np.array(about["labels"])


def square(path):
    """Return a photo as the run's own were: cropped or stretched, through JPEG."""
    image = Image.open(path)
    stored = image.format == "JPEG" and max(image.size) <= photo["side_px"]
    image.draft("RGB", (round(1.5 * photo["side_px"]),) * 2)
    image = ImageOps.exif_transpose(image).convert("RGB")
    (w, h), edge = image.size, min(image.size)
    if not (stored and w == h):
        left, top = (w - edge) // 2, (h - edge) // 2
        crop = (left, top, left + edge, top + edge) if photo["fit"] == "crop" else (0, 0, w, h)
        side = min(photo["side_px"], edge)
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.LANCZOS, crop, reducing_gap=3.0)
        image.save(jpeg := io.BytesIO(), "JPEG", quality=photo["jpeg_quality"])
        image = Image.open(jpeg)
    # TensorFlow's shrinking, in float32 and rows first: networks notice a grey level here or there.
    pixels, side = np.asarray(image, np.float32), photo["then_side_px"]
    scale, steps = (
        np.float32(len(pixels) / side),
        np.arange(max(len(pixels), side), dtype="f4") + 0.5,
    )
    far = steps[:side, None] * scale - steps[: len(pixels)]
    share = np.maximum(0, 1 - np.abs(far) / max(scale, np.float32(1)))
    share *= 1 / share.sum(axis=1, keepdims=True)
    rows = np.einsum("ia,abc->ibc", share, pixels)
    return np.einsum("jb,ibc->ijc", share, rows).round().clip(0, 255).astype(np.uint8)


names = [one.name for one in session.get_outputs()]
for path in sys.argv[2:]:
    found = dict(zip(names, session.run(names, {"image": square(path)[None]}), strict=True))
    none = f"no {labels[0]}" if len(labels) == 1 else "none"
    decided = " + ".join(labels[found["decision"][0] == 1]) or none
    said = [f"{x}: {p:.5f}" for x, p in zip(labels, found["probability"][0], strict=True)]
    print(path, *said, decided)
