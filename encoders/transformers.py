"""The encoders as scikit-learn transformers for matrices `(sample, feature)`: windows of consecutive features.

A fitted transformer is pickled, cloned and sent around; its key is not. Therefore no attribute ever holds the key or
anything expanded from it: encoders bound to a key live in this process alone (`_BOUND`), and a transformer that was
unpickled looks its key up by fingerprint, in the key folder of the machine it woke up on.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Final, Self, final
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from encoders.dense import dense_cohort, encode_dense
from encoders.key_folder import current_key, find_key, key_folder
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import FittedQuantumEncoder, QuantumEncoder
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.protocols import Encoder, FittedEncoder
from pipeline.core.types import Json

_PRECISIONS: Final = (np.float64, np.float32)
_BOUND: Final[WeakKeyDictionary[Any, tuple[Encoder, FittedEncoder]]] = WeakKeyDictionary()


def _options(spec: Json) -> dict[str, Any]:
    """The public spec without what is computed from the map: another machine may round that otherwise."""
    return {fact: value for fact, value in spec.items() if fact != "leakage_bound"}


class AliasingWarning(UserWarning):
    """Values outside [0, 1] may encode as others inside do."""


class _KeyedTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What both have in common; see `RandomQuantumTransformer` for the attributes."""

    keys: str | os.PathLike[str] | None
    noise_sd: float

    def _encoder(self) -> Encoder:
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None) -> Self:
        """Bind to the key in the key folder, made on first use; of X only the number of features counts."""
        x = validate_data(self, X, dtype=_PRECISIONS)
        encoder = self._encoder()
        key = current_key(key_folder(self.keys), "encoder")
        fitted = encoder.fit(dense_cohort(x[:1]), key)
        encoded = encode_dense(x[:0], fitted, self._noise(x[:0]))
        self.key_fingerprint_ = key.fingerprint
        self.public_spec_ = dict(fitted.public_spec())
        self.padded_features_ = encoded.padded_features
        self._columns = encoded.columns
        _BOUND[self] = encoder, fitted
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "sample column"]:
        """Encode each row by itself (noise: the matrix as a whole)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=_PRECISIONS, reset=False)
        fitted = self._fitted(x.shape[1])
        self._warn_of(x)
        return encode_dense(x, fitted, self._noise(x)).values

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns: `mix`, the window's number, the number within the window."""
        check_is_fitted(self)
        known = getattr(self, "feature_names_in_", None)
        if input_features is not None and known is not None and not np.array_equal(known, input_features):
            raise ValueError("input_features is not equal to feature_names_in_")
        if input_features is not None and len(input_features) != self.n_features_in_:
            raise ValueError(f"input_features should have length equal to number of features ({self.n_features_in_})")
        return np.array(self._columns, dtype=object)

    def _fitted(self, n_features: int) -> FittedEncoder:
        """The encoder bound to its key: the one of `fit`, or (unpickled, copied) bound again to the same key."""
        encoder = self._encoder()
        if self not in _BOUND:
            key = find_key(key_folder(self.keys), "encoder", self.key_fingerprint_)
            awake = encoder.fit(dense_cohort(np.zeros((1, n_features))), key)
            if _options(awake.public_spec()) != _options(self.public_spec_):
                raise ConfigError(
                    f"this {type(self).__name__} was fitted with other options, or by another version of Decoct; "
                    "fit it again"
                )
            _BOUND[self] = encoder, awake
        bound, fitted = _BOUND[self]
        if bound != encoder:
            raise ConfigError(f"this {type(self).__name__} was fitted with other options; fit it again")
        return fitted

    def _is_random(self) -> bool:
        raise NotImplementedError

    def _noise(self, x: np.ndarray) -> NoiseSource | None:
        if not self._is_random():
            return None
        return NoiseSource(current_key(key_folder(self.keys), "noise"), digest_array(x))

    def _warn_of(self, x: np.ndarray) -> None:
        """What the user must hear about these values."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@final
class RandomQuantumTransformer(_KeyedTransformer):
    """Random quantum encoding of each row, `n_qubits` consecutive features at a time; the last window is filled up.

    Features are expected in [0, 1], and nothing here scales them: outside they may alias, which is warned of with the
    share. Options are those of `encoders.quantum.QuantumEncoder`.

    Parameters:
        keys: folder of the key store; None = the environment variable DECOCT_KEYS, else the user's configuration folder
            (Linux: ~/.config/decoct/keys). Its `encoder.key` is made on first use.
        noise_sd: standard deviation of the noise on every output, from the folder's `noise.key` and the digest of the
            matrix given to `transform`: the same matrix gets the same noise, one row more gets other noise.
        shots: outputs as means of so many measurements, from the same two.

    Attributes:
        key_fingerprint_: the key's name.
        public_spec_: all that a receiver may know of the encoder.
        padded_features_: how many features were added to fill the last window.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        *,
        n_qubits: int = 4,
        n_layers: int = 2,
        template: str = "BasicEntanglerLayers",
        embedding: str = "RY",
        embedding_range: tuple[float, float] = (0.0, 0.5),
        stride: int | None = None,
        correlations: bool = False,
        shots: int | None = None,
        noise_sd: float = 0.0,
        backend: str = "closed_form",
        pennylane_device: str = "default.qubit",
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        self.n_qubits = n_qubits
        self.n_layers = n_layers
        self.template = template
        self.embedding = embedding
        self.embedding_range = embedding_range
        self.stride = stride
        self.correlations = correlations
        self.shots = shots
        self.noise_sd = noise_sd
        self.backend = backend
        self.pennylane_device = pennylane_device
        self.keys = keys

    def qnode(self) -> Any:
        """The circuit of one window as PennyLane's QNode, to draw or to build on; its weights are the key.

        It takes `n_qubits` angles: a feature x is pi * (low + (high - low) * x), with `embedding_range` = (low, high).
        `qml.draw(transformer.qnode(), decimals=None, show_matrices=False)` draws it without its weights.
        """
        check_is_fitted(self)
        fitted = self._fitted(self.n_features_in_)
        assert isinstance(fitted, FittedQuantumEncoder)
        return fitted.qnode()

    def _encoder(self) -> Encoder:
        options = {name: value for name, value in self.get_params(deep=False).items() if name != "keys"}
        return QuantumEncoder(axis="variables", **options)

    def _is_random(self) -> bool:
        return bool(self.noise_sd or self.shots)

    def _warn_of(self, x: np.ndarray) -> None:
        share = float(np.mean((x < 0) | (x > 1))) if x.size else 0.0
        if share:
            warnings.warn(
                f"{100 * share:.3g} % of the values lie outside [0, 1] and may alias in the quantum encoding; "
                "scale them before, by ranges that are not computed from patients if you can",
                AliasingWarning,
                stacklevel=3,
            )


@final
class RandomProjectionTransformer(_KeyedTransformer):
    """Random projection of each row, `window` consecutive features at a time; the last window is filled up with 0.

    Options are those of `encoders.projection.RandomProjectionEncoder`; parameters `keys`, `noise_sd` and attributes as
    in `RandomQuantumTransformer`. `axis` "record" projects the whole row by one matrix, whatever `window` says.
    """

    def __init__(
        self,
        *,
        window: int = 4,
        axis: str = "variables",
        distribution: str = "gaussian",
        density: float | None = None,
        n_components: int | None = None,
        stride: int | None = None,
        noise_sd: float = 0.0,
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        self.window = window
        self.axis = axis
        self.distribution = distribution
        self.density = density
        self.n_components = n_components
        self.stride = stride
        self.noise_sd = noise_sd
        self.keys = keys

    def _encoder(self) -> Encoder:
        options = {name: value for name, value in self.get_params(deep=False).items() if name != "keys"}
        return RandomProjectionEncoder(**options)

    def _is_random(self) -> bool:
        return bool(self.noise_sd)
