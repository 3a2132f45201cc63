"""Adam on minibatches of a small dense network, spelled out in NumPy.

In: weights as ``keras.Model.get_weights`` gives them, a matrix and targets. Out: weights for
``set_weights``. An epoch of a network this small is a few milliseconds of arithmetic a core, which
an engine spends several times over on starting each operation and on random numbers; so the steps
are written down here, whole batches at a time in memory that is used again, a thread a core. They
are Keras' own steps: tests compare weights after each with ``keras.Model.train_on_batch``.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

Array = np.ndarray
_PART_ROWS = 512
"""Rows a thread takes at a time: what they need lies in its cache. Fixed, and sums are taken in the
parts' order, so the weights do not depend on the number of cores."""
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # keras.optimizers.Adam


class NumpyAdam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) on binary or categorical cross-entropy.

    The network: dense layers with relu and inverted dropout (Srivastava et al. 2014, section 10)
    but for the last, which is followed by a sigmoid a column or by one softmax. A context manager:
    threads live inside ``with``.

    Parameters
    ----------
    weights : sequence of numpy.ndarray
        Kernel (in, out) and bias (out,) of each layer in turn, float32.
    softmax : bool
    dropout : float
        Rate in [0, 1); drawn with 1 bit or 8 where they express it, else rounded to 16.
    batch_size : int
    learning_rate : float
    seed : int
        Of the batches and of dropout.
    workers : int, optional
        Threads; None: one a core. The result is the same to the bit.
    """

    def __init__(
        self,
        weights: Sequence[Array],
        *,
        softmax: bool,
        dropout: float,
        batch_size: int,
        learning_rate: float,
        seed: int,
        workers: int | None = None,
    ) -> None:
        shapes = [weight.shape for weight in weights]
        self._softmax, self._batch_size, self._rate = softmax, batch_size, learning_rate
        self._flat = np.concatenate([np.ravel(weight) for weight in weights]).astype(np.float32)
        self._kernels = _views(self._flat, shapes)
        levels = next((n for n in (2, 256) if dropout * n == round(dropout * n)), 65536)
        threshold = min(round(dropout * levels), levels - 1)
        # Kept units are scaled by scaling the kernel that reads them, which is far smaller.
        self._scale = np.ones_like(self._flat)
        for kernel in _views(self._scale, shapes)[2::2]:
            kernel[...] = levels / (levels - threshold)
        self._scaled = np.empty_like(self._flat)
        self._layers = _views(self._scaled, shapes)
        self._mean, self._square = np.zeros_like(self._flat), np.zeros_like(self._flat)
        self._steps = 0
        order, *seeds = np.random.SeedSequence(seed).spawn(1 + -(-batch_size // _PART_ROWS))
        self._order = np.random.default_rng(order)
        rows = min(batch_size, _PART_ROWS)
        self._parts = [_Part(shapes, rows, levels, threshold, one) for one in seeds]
        self._workers = min(workers or os.cpu_count() or 1, len(self._parts))

    def __enter__(self) -> "NumpyAdam":
        # The BLAS library's own threads would wait for each other on matrices this small.
        self._limits = threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self._workers) if self._workers > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()
        self._limits.restore_original_limits()

    @property
    def weights(self) -> list[Array]:
        """Copies of the weights as they are now, in the order and shapes given."""
        return [kernel.copy() for kernel in self._kernels]

    def run_epoch(self, x: Array, targets: Array, *, shuffle: bool = True) -> Array:
        """Learn from every row once; return what the network said of each on the way.

        Parameters
        ----------
        x : array of shape (n, columns), float32
        targets : array of shape (n, outputs), float32
        shuffle : bool
            Deal the rows out anew.

        Returns
        -------
        numpy.ndarray of shape (n, outputs), float32
            Logits under dropout, before the row's batch was learned, in the rows' order.
        """
        order = self._order.permutation(len(x)) if shuffle else np.arange(len(x))
        x, targets = x[order], targets[order]
        logits = np.empty_like(targets)
        for start in range(0, len(x), self._batch_size):
            rows = slice(start, min(start + self._batch_size, len(x)))
            self._step(x[rows], targets[rows], logits[rows])
        found = np.empty_like(logits)
        found[order] = logits
        return found

    def logits(self, x: Array) -> Array:
        """Return the network's logits (n, outputs) for rows (n, columns), without dropout."""
        found = [self._forward(x[at : at + 4096]) for at in range(0, len(x), 4096)]
        return np.concatenate(found)

    def loss(self, logits: Array, targets: Array) -> float:
        """Return the mean cross-entropy of logits (n, outputs) under targets of that shape."""
        if self._softmax:
            top = logits.max(axis=1, keepdims=True)
            logs = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
            return float(-(targets * logs).sum(axis=1).mean())
        return float((np.logaddexp(0, logits) - targets * logits).mean())

    def _forward(self, x: Array) -> Array:
        for kernel, bias in zip(self._kernels[:-2:2], self._kernels[1:-2:2], strict=True):
            x = x @ kernel + bias
            x *= x > 0
        return x @ self._kernels[-2] + self._kernels[-1]

    def _step(self, x: Array, targets: Array, logits: Array) -> None:
        """Learn from one batch; fill in ``logits``."""
        np.multiply(self._flat, self._scale, out=self._scaled)
        share = len(targets) if self._softmax else targets.size  # Keras takes the outputs' mean
        jobs = []
        for part, start in zip(self._parts, range(0, len(x), _PART_ROWS), strict=False):
            rows = slice(start, start + _PART_ROWS)
            jobs.append((part, x[rows], targets[rows], logits[rows]))

        def differentiate(job: tuple["_Part", Array, Array, Array]) -> None:
            part, *data = job
            part.differentiate(self._layers, *data, softmax=self._softmax, share=share)

        if self._pool and len(jobs) > 1:
            list(self._pool.map(differentiate, jobs))
        else:
            for job in jobs:
                differentiate(job)
        gradient = jobs[0][0].gradient
        for part, *_ in jobs[1:]:
            gradient += part.gradient
        gradient *= self._scale
        self._descend(gradient)

    def _descend(self, gradient: Array) -> None:
        self._steps += 1
        self._mean += (gradient - self._mean) * (1 - _BETA_1)
        self._square += (np.square(gradient) - self._square) * (1 - _BETA_2)
        rate = self._rate * (1 - _BETA_2**self._steps) ** 0.5 / (1 - _BETA_1**self._steps)
        self._flat -= rate * self._mean / (np.sqrt(self._square) + _EPSILON)


class _Part:
    """Memory and random numbers for one part of a batch."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        rows: int,
        levels: int,
        threshold: int,
        seed: np.random.SeedSequence,
    ) -> None:
        self._random = np.random.SFC64(seed)
        self._levels, self._threshold = levels, threshold
        self._ones = np.ones(rows, np.float32)
        self.gradient = np.zeros(sum(map(np.prod, shapes)), np.float32)
        self._gradients = _views(self.gradient, shapes)
        widths = [bias for (bias,) in shapes[1:-2:2]]
        self._units = [np.empty((rows, width), np.float32) for width in widths]
        self._errors = [np.empty((rows, width), np.float32) for width in widths]
        self._alive = [np.empty((rows, width), bool) for width in widths]
        self._flags = [np.empty((rows, width), bool) for width in widths]

    def differentiate(
        self,
        layers: Sequence[Array],
        x: Array,
        targets: Array,
        logits: Array,
        *,
        softmax: bool,
        share: int,
    ) -> None:
        """Fill in ``logits`` and the gradient of ``loss * rows of the batch / share``."""
        n, units = len(x), [x]
        for i, buffer in enumerate(self._units):
            found = np.matmul(units[-1], layers[2 * i], out=buffer[:n])
            found += layers[2 * i + 1]
            # Relu and dropout at once: a product with flags is quicker than np.maximum. It makes
            # NaN of an infinite number, which only weights that are lost already lead to.
            alive = np.greater(found, 0, out=self._alive[i][:n])
            if self._threshold:
                alive &= self._draw_kept(i, n)
            found *= alive
            units.append(found)
        np.matmul(units[-1], layers[-2], out=logits)
        logits += layers[-1]
        error = (_probabilities(logits, softmax) - targets) / np.float32(share)
        for i in range(len(self._units), -1, -1):
            np.matmul(units[i].T, error, out=self._gradients[2 * i])
            np.matmul(self._ones[:n], error, out=self._gradients[2 * i + 1])  # sums over rows
            if i:
                # With a single output an outer product, which BLAS is slow at.
                product = np.multiply if error.shape[1] == 1 else np.matmul
                error = product(error, layers[2 * i].T, out=self._errors[i - 1][:n])
                error *= self._alive[i - 1][:n]  # none goes through a unit that said 0

    def _draw_kept(self, layer: int, n: int) -> Array:
        """Return which of the layer's units (n, width) stay, drawn anew."""
        kept = self._flags[layer][:n]
        bits = self._levels.bit_length() - 1
        words = -(-kept.size * bits // 64)
        random = self._random.random_raw(words)
        if bits == 1:
            random = np.unpackbits(random.view(np.uint8), count=kept.size)
            return random.view(bool).reshape(kept.shape)
        random = random.view(f"u{bits // 8}")[: kept.size].reshape(kept.shape)
        return np.greater_equal(random, self._threshold, out=kept)


def _views(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Return windows of a vector in the given shapes, one behind the other."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [
        flat[end - int(np.prod(shape)) : end].reshape(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def _probabilities(logits: Array, softmax: bool) -> Array:
    if softmax:
        found = np.exp(logits - logits.max(axis=1, keepdims=True))
        return found / found.sum(axis=1, keepdims=True)
    # Of the two forms of the logistic function, the one that cannot overflow.
    return 0.5 * (1 + np.tanh(0.5 * logits))
