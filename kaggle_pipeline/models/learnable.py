"""What no model can learn, seen in the labels and folds alone: said before hours of training.

In: training rows, their folds, the models that are wanted. Out: nothing, or an error of one line.
"""

from collections.abc import Collection, Iterator

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import LEARNERS, METADATA_STAGES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.class_balance import label_sets
from kaggle_pipeline.models.cross_validation import fit_rows


def require_labels(examples: pd.DataFrame, spec: DatasetSpec) -> None:
    """Stop where the training rows leave nothing to tell apart.

    Raises
    ------
    PipelineError
        If no training row is of a class, or all are; of several classes that exclude each other, if
        fewer than two have rows.
    """
    train = split_rows(examples, "train")
    counts = train[list(spec.classes)].sum()
    if spec.task == "multiclass":
        if (counts > 0).sum() < 2:
            raise PipelineError(
                f"{spec.id}: all {len(train)} training photos are {counts.idxmax()}: there is "
                "nothing to learn; check the table's labels"
            )
        return
    for name, count in counts.items():
        if count in (0, len(train)):
            which = "none" if count == 0 else "all"
            raise PipelineError(
                f"{spec.id}: {which} of {len(train)} training photos "
                f"{'is' if count == 0 else 'are'} {name} (1): there is nothing to learn; check "
                "that column of the table"
            )


def require_learnable(
    train: pd.DataFrame,
    folds: Folds,
    spec: DatasetSpec,
    config: Experiment,
    stages: Collection[str],
) -> Iterator[str]:
    """Stop where the model of some fold would have nothing to learn a class from.

    Parameters
    ----------
    train : pandas.DataFrame
        Training rows of the examples.
    folds : Folds
    spec : DatasetSpec
    config : Experiment
    stages : collection of str
        ``image``, ``tabular`` and learners that are to be trained.

    Returns
    -------
    iterator of str
        Lines for the user about what can be learned and not be scored.

    Raises
    ------
    PipelineError
        That names the fold, the class and what to do.
    """
    tabular = bool(set(METADATA_STAGES) & set(stages))
    dense = config.tabular if tabular and "dense" in config.tabular.learners else None
    strict = spec.task != "multiclass" or (tabular and set(config.tabular.learners) & set(LEARNERS))
    # Other collections' rows are in every fold.
    strict = strict and (tabular or not config.external)
    for fold in folds.numbers:
        learned, scored = (train.loc[ids] for ids in (folds.train_ids(fold), folds.valid_ids(fold)))
        for name in spec.classes if strict else ():
            if learned[name].nunique() < 2:
                raise PipelineError(_describe_lack(learned, train, name, fold, spec))
        if dense is not None and dense.resampling != "none":
            rows, _ = fit_rows(dense, learned, scored, spec, config.seed)
            _require_neighbours(rows, fold, spec, dense.resampling)
    return _unscored(train.loc[folds.validated.index], spec)


def _unscored(validated: pd.DataFrame, spec: DatasetSpec) -> Iterator[str]:
    for name in spec.classes:
        if validated[name].nunique() < 2:
            which = "all" if validated[name].any() else "none"
            yield f"{which} of the {len(validated)} validated photos is {name}: it has no AUC"


def _describe_lack(
    learned: pd.DataFrame, train: pd.DataFrame, name: str, fold: int, spec: DatasetSpec
) -> str:
    rare = 0 if learned[name].sum() == 0 else 1
    held = train[train[name] != rare]
    lacks = f"fold {fold}: of the {len(learned)} photos to learn from, all have {name} = {rare}"
    if held.empty:
        return f"{lacks}, as all {len(train)} training photos have: add photos of the other kind"
    groups = held["group_id"].nunique()
    where = f"all {len(held)} such photos are of {groups} {spec.group or 'photo'}"
    where += "" if groups == 1 else "s"
    return f"{lacks}; {where}: add photos of others, use fewer folds.k, or say folds.holdout"


def _require_neighbours(rows: pd.DataFrame, fold: int, spec: DatasetSpec, resampling: str) -> None:
    sets, codes = label_sets(rows[list(spec.classes)].to_numpy(int))
    counts = pd.Series(codes).value_counts()
    if len(sets) > 1 and counts.min() >= 2:
        return
    labels = sets[counts.idxmin()]
    names = [name for name, label in zip(spec.classes, labels, strict=True) if label]
    raise PipelineError(
        f"tabular.resampling={resampling} needs 2 photos of each class; of the {len(rows)} that "
        f"fold {fold} learns from, {counts.min()} is {' + '.join(names) or 'of no class'}: add "
        "some, or say --set tabular.resampling=none"
    )
