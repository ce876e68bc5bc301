"""Many images on a plane: those with like features stand close to each other."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

_COMPONENTS = 50  # that the neighbourhoods are looked for in
_NEIGHBOURS = 30.0  # the perplexity of t-SNE
_STEPS = 500  # of t-SNE; half as many as usual, and the same map to the eye
_FEWEST = 4  # images that make a map


def project(features: NDArray[np.float32], *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return places on a plane by PCA and t-SNE, and by UMAP where it is installed.

    t-SNE: van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 9, 2008; it starts from the
    principal components, so that the large arrangement means something, too. UMAP: McInnes, Healy
    and Melville, arXiv:1802.03426, 2018.

    Args:
        features: Of the images, (n, d); for fewer than four there is no map.
        seed: Of what is drawn.

    Returns:
        By the name of the method the place of each image, right and up, 0 to 1, (n, 2).

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
        >>> {name: found.shape for name, found in project(rows).items()}
        {'PCA': (9, 2), 't-SNE': (9, 2)}
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(features) < _FEWEST or min(features.shape) < 2 or np.ptp(features) == 0:
        return {}
    count = min(_COMPONENTS, *features.shape)
    main = PCA(count, random_state=seed).fit_transform(features)
    found = {"PCA": main[:, :2]}
    near = min(_NEIGHBOURS, (len(main) - 1) / 3)
    model = TSNE(perplexity=near, init="pca", max_iter=_STEPS, random_state=seed)
    found["t-SNE"] = model.fit_transform(main)
    if find_spec("umap") is not None:
        from umap import UMAP

        found["UMAP"] = UMAP(n_jobs=1, random_state=seed).fit_transform(main)
    return {name: _to_unit(places) for name, places in found.items()}


def _to_unit(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return places within a square of side 1; distances keep their proportions."""
    low, high = places.min(axis=0), places.max(axis=0)
    side = float((high - low).max()) or 1.0
    return np.asarray((places - (low + high) / 2) / side + 0.5, dtype=np.float32)
