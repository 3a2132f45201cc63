"""Logistic regression with a ridge penalty that is chosen on held-out groups.

In: a matrix, labels, and the inner folds of the training rows. Out: weights of the matrix as it is.
"""

import warnings
from dataclasses import dataclass

import numpy as np

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
"""Half of the weight of the squared coefficients, beside the mean log loss of a row; from the
strongest on."""
_PATIENCE = 2
"""The search ends after so many weaker penalties in a row that are worse than the best."""
_LEAST = 1e-7
"""What a held-out row's true class counts at least."""


@dataclass(frozen=True)
class LinearHead:
    """What was learned of one question.

    Attributes
    ----------
    weights : numpy.ndarray of shape (columns, answers), float64
        One answer for yes or no, else a logit a class.
    base : numpy.ndarray of shape (answers,), float64
        Minus infinity for a class that no training row is of.
    penalty : float
    losses : dict of float to float
        Mean log loss of held-out rows by penalty; empty where none could be held out.
    """

    weights: np.ndarray
    base: np.ndarray
    penalty: float
    losses: dict[float, float]

    def answer(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities: (n,) of yes, or (n, classes)."""
        from scipy.special import expit, softmax

        logits = x @ self.weights + self.base
        return expit(logits[:, 0]) if logits.shape[1] == 1 else softmax(logits, axis=1)


def fit_head(x: np.ndarray, y: np.ndarray, fold: np.ndarray, classes: int) -> LinearHead:
    """Choose the penalty by the log loss of rows that inner folds hold out, then learn from all.

    Columns are standardised by the rows that are learned from, in each inner fold anew.

    Parameters
    ----------
    x : numpy.ndarray of shape (n, columns), float
    y : numpy.ndarray of shape (n,), int
        0 or 1, or the class's number.
    fold : numpy.ndarray of shape (n,), int
        Inner fold of each row; no group is in two.
    classes : int
        2 for yes or no.
    """
    parts = []
    for number in np.unique(fold):
        learned, held = fold != number, fold == number
        if len(np.unique(y[learned])) > 1:
            parts.append((_Path(x[learned], y[learned]), x[held], y[held]))
    losses: dict[float, float] = {}
    for penalty in PENALTIES if parts else ():
        found = []
        for path, held, truth in parts:
            weights, base = path.fit(penalty, classes)
            found.append(_log_loss(LinearHead(weights, base, penalty, {}).answer(held), truth))
        losses[penalty] = float(np.concatenate(found).mean())
        best = min(losses, key=losses.__getitem__)
        if list(losses).index(best) < len(losses) - _PATIENCE:
            break
    chosen = min(losses, key=losses.__getitem__) if losses else PENALTIES[0]
    weights, base = _Path(x, y).fit(chosen, classes)
    return LinearHead(weights, base, chosen, losses)


class _Path:
    """Fits of ever weaker penalties on the same rows, each beginning with the one before."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        self._mean, spread = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
        # A column that never changes has nothing to say: a row that differs would upset the answer.
        self._spread = np.where(spread > 1e-6, spread, np.inf)
        # Half the bytes to read at each step, and vectors are no more exact.
        self._x = ((x - self._mean) / self._spread).astype(np.float32)
        self._y = y
        self._model = LogisticRegression(warm_start=True, max_iter=1000)

    def fit(self, penalty: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and bases of the columns as they are."""
        from sklearn.exceptions import ConvergenceWarning

        self._model.set_params(C=1 / (2 * penalty * len(self._y)))
        with warnings.catch_warnings():
            # The weakest penalties on more columns than rows: they are not what is chosen.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._x, self._y)
        coefficients = self._model.coef_.astype(float)
        base = self._model.intercept_.astype(float)
        if classes > 2 and len(coefficients) == 1:  # two of several classes are here
            coefficients = np.vstack([-coefficients, coefficients]) / 2
            base = np.concatenate([-base, base]) / 2
        weights = coefficients.T / self._spread[:, None]
        base = base - self._mean @ weights
        if classes == 2:
            return weights, base
        full, bases = np.zeros((len(weights), classes)), np.full(classes, -np.inf)
        full[:, self._model.classes_], bases[self._model.classes_] = weights, base
        return full, bases


def _log_loss(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if answers.ndim == 1:
        right = np.where(truth == 1, answers, 1 - answers)
    else:
        right = answers[np.arange(len(truth)), truth]
    return -np.log(np.maximum(right, _LEAST))
