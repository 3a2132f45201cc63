"""The page reads a run that blends its network with heads on frozen encoders."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words

from kaggle_pipeline.cli.main import main

pytest.importorskip("tensorflow")
LENET = "{source: keras:LeNet, weights: null, options: {filters: 4}, image_size_px: 32}"
HEADS = (f"embedding.encoders=[{LENET}]", "embedding.inner_folds=2",
         "blend.models=[image,embedding]", "blend.weights=equal", "blend.space=mean")  # fmt: skip


@pytest.mark.ci
def test_a_blend_with_heads_is_read_as_it_was_submitted(demo_run, competition, tmp_path):
    run, data = shutil.copytree(demo_run, tmp_path / "run"), competition / "competition"
    words = demo_words(data, run, *HEADS)
    assert main(["train-embedding", *words]) == 0 and main(["make-submission", *words]) == 0
    from kaggle_pipeline.webapp.service import Service

    service = Service(run, "cpu")
    try:
        for path in sorted((data / "jpeg" / "test").glob("*.jpg"))[:3]:
            look = service.look(path.name, path.read_bytes())
            (reading,) = service.read([look], [{}])
            for stage in ("image", "embedding"):
                known = pd.read_csv(run / stage / "test.csv", index_col="image_id")
                said = reading.parts[stage]["target"]
                np.testing.assert_allclose(said, known.loc[path.stem, "target"], atol=1e-4)
            assert reading.low["target"] <= reading.probability["target"] <= reading.high["target"]
    finally:
        service.close()
