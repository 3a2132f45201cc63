"""Names that settings, stages, report, kernels and command line share, said once."""

from pathlib import Path

LEARNERS = ("boosting", "forest", "logistic")
"""scikit-learn's models of the metadata; each is a stage of its own."""
METADATA_STAGES = ("tabular", *LEARNERS)
"""Stages that learn from metadata alone; ``tabular`` is the dense network."""
MODEL_STAGES = ("image", "embedding", *METADATA_STAGES)
"""Stages that train a model a fold and leave ``oof.csv`` and ``test.csv``."""
TRAINED_BY = {
    "image": "train_image",
    "embedding": "train_embedding",
    **dict.fromkeys(METADATA_STAGES, "train_tabular"),
}
"""The script that trains a stage's models."""
BLEND_STAGES = ("blend", "ensemble")
"""Stages that make one score of several."""
SCORED_STAGES = (*MODEL_STAGES, *BLEND_STAGES)
"""Stages whose folder holds scores, in the order of a table."""
WEIGHTS_OF = {"InceptionResNetV2Merged": "InceptionResNetV2"}
"""Backbones whose published weights are another one's."""
TEST_TRUTH = "test_truth.csv"
"""Labels of a test part that ``folds.test_share`` set aside, in ``prepare/``."""
MADE_UP_MARK = "made_up.txt"
"""In a data folder and in ``prepare/``: says that the photos are made up."""
MADE_UP_TRUTH = "truth.csv"
"""Beside the folder of a made-up competition: its test labels, which no model ever reads."""
TEST_SCORE = "test_score.json"
"""What ``score_submission.py`` found of a run's ``submission.csv``, beside it."""
SUBMISSION = "submission.csv"
"""What is handed in, in the run's own folder."""
TOOK = "took.json"
"""In a stage's folder: seconds and peak memory of what was done in one go."""
CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that holds the package."""
PACKED = CHECKOUT / "kaggle_pipeline"
HOME = PACKED if (PACKED / "configs").is_dir() else CHECKOUT
"""The folder that holds ``configs/`` and ``kernels/``: beside the package, once installed in it."""
DEFAULT_CONFIG = HOME / "configs" / "siim_isic_2020.yaml"
DEMO_RUN = Path("runs") / "demo"
"""Run folder of ``make demo``."""
KAGGLES_OWN = ("model-metadata.json", "model-instance-metadata.json")
"""What Kaggle's command line reads beside a model's files and does not upload."""
PREPARED_BY = ("dataset", "table", "seed", "examples", "folds", "leakage", "external")
"""Settings that decide what ``prepare/`` holds; every later stage has to agree in them."""
LEAVE_OUT = "examples.unreadable: drop in the config (--set examples.unreadable=drop)"
"""How rows without a photo that can be read are left out."""
NEEDED = "the sample submission lists it, and a submission needs every photo that the sample lists"
"""Why a row of the test cannot be left out."""
