"""Logistic regression with a ridge penalty that is chosen on held-out groups.

In: a matrix, labels, and the inner folds of the training rows. Out: weights of the matrix as it is.
"""

from dataclasses import dataclass

import numpy as np

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
"""Half of the weight of the squared coefficients, beside the mean log loss of a row; from the
strongest on."""
_PATIENCE = 2
"""The search ends after so many weaker penalties in a row that are worse than the best."""
_LEAST = 1e-7
"""What a held-out row's true class counts at least."""
_SLOPE, _GAIN = 1e-5, 1e-9
"""A fit ends where the loss is as flat, or falls as little: float32 tells no smaller gain."""
_LEAST_CURVATURE = 1e-6
"""p(1 - p) of a class that is all but certain."""


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
            parts.append((LogisticPath(x[learned], y[learned]), x[held], y[held]))
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
    weights, base = LogisticPath(x, y).fit(chosen, classes)
    return LinearHead(weights, base, chosen, losses)


class LogisticPath:
    """Fits of ever weaker penalties on the same rows, each beginning with the one before.

    Rows are turned into their principal axes, once. A step along an axis is then divided by the
    root of the loss's curvature there (its variance, times p(1 - p) of the class, and the penalty),
    so L-BFGS needs tens of steps where it needs hundreds on the columns. The minimum is the same:
    turning changes no squared sum of coefficients. float32 halves what each step reads.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        from scipy import linalg

        self._mean, spread = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
        # A column that never changes has nothing to say: a row that differs would upset the answer.
        self._spread = np.where(spread > 1e-6, spread, np.inf)
        rows = x - self._mean
        rows /= self._spread
        rows, axes = rows.astype(np.float32), None
        if rows.shape[1] > len(rows):  # nothing lies outside the space of the rows
            axes, _ = linalg.qr(rows.T, mode="economic", check_finite=False)
            rows = rows @ axes
        variance, turned = linalg.eigh(
            rows.T @ rows / len(rows), check_finite=False, overwrite_a=True, driver="evd"
        )
        self._axes = turned if axes is None else axes @ turned
        self._rows, self._variance = rows @ turned, np.maximum(variance, 0).astype(float)
        self._present, numbers = np.unique(y, return_inverse=True)
        classes = np.eye(len(self._present))[numbers]
        self._truth = classes if len(self._present) > 2 else classes[:, 1:]
        # Without a coefficient the answer is how frequent a class is.
        share = classes.mean(axis=0)
        start = np.log(share) if len(self._present) > 2 else np.log(share[1:] / share[:1])
        self._weights = np.zeros((len(self._variance) + 1, len(start)))
        self._weights[-1] = start

    def fit(self, penalty: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and bases of the columns as they are."""
        from scipy.optimize import minimize

        answers = self._answers(self._weights)[0]
        spread = np.maximum((answers * (1 - answers)).mean(axis=0), _LEAST_CURVATURE)
        curvature = np.outer(np.append(self._variance, 1.0), spread)
        curvature[:-1] += 2 * penalty  # the last is the base, which costs nothing
        scale = 1 / np.sqrt(curvature)

        def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
            weights = scaled.reshape(scale.shape) * scale
            answers, value = self._answers(weights)
            away = (answers - self._truth) / len(answers)
            slope = np.vstack([self._rows.T @ away.astype(np.float32), away.sum(axis=0)])
            slope[:-1] += 2 * penalty * weights[:-1]
            return value + penalty * float((weights[:-1] ** 2).sum()), (slope * scale).ravel()

        found = minimize(
            loss, (self._weights / scale).ravel(), jac=True, method="L-BFGS-B",
            options={"gtol": _SLOPE, "ftol": _GAIN, "maxiter": 1000},
        )  # fmt: skip
        self._weights = found.x.reshape(scale.shape) * scale
        coefficients, base = self._axes @ self._weights[:-1], self._weights[-1]
        if classes > 2 and len(base) == 1:  # two of several classes are here
            coefficients = np.hstack([-coefficients, coefficients]) / 2
            base = np.concatenate([-base, base]) / 2
        weights = coefficients / self._spread[:, None]
        base = base - self._mean @ weights
        if classes == 2:
            return weights, base
        full, bases = np.zeros((len(weights), classes)), np.full(classes, -np.inf)
        full[:, self._present], bases[self._present] = weights, base
        return full, bases

    def _answers(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Probabilities of the rows, float64, and their mean log loss."""
        from scipy.special import expit, log_softmax

        logits = (self._rows @ weights[:-1].astype(np.float32)).astype(float) + weights[-1]
        if logits.shape[1] == 1:
            return expit(logits), float((np.logaddexp(0, logits) - logits * self._truth).mean())
        logs = log_softmax(logits, axis=1)
        return np.exp(logs), float(-(logs * self._truth).sum(axis=1).mean())


def _log_loss(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if answers.ndim == 1:
        right = np.where(truth == 1, answers, 1 - answers)
    else:
        right = answers[np.arange(len(truth)), truth]
    return -np.log(np.maximum(right, _LEAST))
