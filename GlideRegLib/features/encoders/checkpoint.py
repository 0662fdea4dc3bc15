"""Reads the image encoder out of a file of weights, without running code that the file may hold."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import WeightsError

#: Entries of official files that no inference needs: a classifier that SAM never calls, the
#: training's counters of batches, and tables that follow from the architecture.
_UNUSED = re.compile(r"^(norm_head|head)\.|(^|\.)(num_batches_tracked|attention_bias_idxs|ab)$")


def read_state(path: Path, prefix: str) -> dict[str, Tensor]:
    """The image encoder's tensors of a checkpoint, without the prefix; no code is run.

    Reads safetensors, or PyTorch files with ``weights_only=True``; a dictionary under "model" is
    opened (SAM 2). A file that holds the image encoder alone has no prefix. Raises
    :class:`WeightsError` when it is damaged or holds anything but tensors.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no tensors by name; take the official file.")
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in (inside or state).items() if not _UNUSED.search(k)}


def complete(
    state: dict[str, Tensor], network: nn.Module, path: Path, title: str
) -> dict[str, Tensor]:
    """``state`` with the network's own unused entries, so that it can be loaded strictly.

    Raises :class:`WeightsError` when a tensor is missing, unknown, or of another shape.
    """
    own = network.state_dict()
    needed = {key for key in own if not _UNUSED.search(key)}
    wrong = [f"'{key}' is missing" for key in sorted(needed - state.keys())]
    wrong += [f"'{key}' is unknown" for key in sorted(state.keys() - needed)]
    wrong += [
        f"'{key}' has the shape {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(needed & state.keys())
        if state[key].shape != own[key].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more differences)" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{path} does not have the layout of {title}: {wrong[0]}{more}; take the official file."
        )
    return {**{key: own[key] for key in own.keys() - needed}, **state}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file ({error}).") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, such as code; it was not loaded."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises a dozen kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is damaged or not a PyTorch file ({reason}).") from error
