"""The stages of a run: each reads files, calls the layers below and leaves files.

In: an experiment, a data folder, a run folder. Out, in the run folder:

=============  ==================================================================================
``prepare/``   ``examples.csv folds.csv leakage.json overlap.png fingerprints.csv records.csv``
``records/``   the TFRecords, where they were made here
``image/``     ``fold<k>/``, ``oof.csv test.csv metrics.json learning_curves.png``, and
               ``evaluation.json``, ``calibration.json``, ``decision.json`` with their pictures;
               ``records.json``: how the photos that it learned from were made square
``embedding/`` the same for heads on the vectors in ``embeddings/<encoder>/``
``tabular/``   the same without ``records.json``; so ``boosting/ forest/ logistic/``
``blend/``     ``blend.json oof.csv test.csv metrics.json roc.png``, ``evaluation.json``,
               ``calibration.json``, ``decision.json``
``ensemble/``  ``study.json`` and the same, where ``blend_scores`` made the submission
``explore/``   ``summary.json`` and pictures of the data
=============  ==================================================================================

and ``submission.csv``, ``report.html``. Every stage folder also holds the resolved
``config.yaml`` and ``versions.json``.
"""
