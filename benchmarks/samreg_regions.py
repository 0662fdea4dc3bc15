"""Do SAMReg's paired regions hold the same anatomy? On the semi-synthetic LIDC pair: two tables.

``python -m benchmarks.samreg_regions``. The regions are found once; then they are paired in several
ways. A moving region is carried to the fixed image by the true motion and compared with its partner
(Dice), and the commonest structures of the two (of the 118 labels) are compared. What bears no
label is no structure: pairs of such regions are left out there. For a dense field of each way: TRE.
The second table lists the pairs of the default way. Research use only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks.cost import describe_run, describe_run_in_words
from benchmarks.method_table import shown
from GlideRegLib.features.decoders import load_segmenter
from GlideRegLib.field import DisplacementField, affine_to_sitk
from GlideRegLib.geometry import transform_points
from GlideRegLib.methods.samreg import Options
from GlideRegLib.optimize.warping import pool
from GlideRegLib.pair import find_start, understand
from GlideRegLib.prepare import prepare_pair
from GlideRegLib.progress import Progress
from GlideRegLib.quality import landmark_errors
from GlideRegLib.regions.dense import field_from_regions
from GlideRegLib.regions.find import FoundRegions, RegionFinder
from GlideRegLib.sample_data.semisynthetic import SemiSyntheticPair, lidc_pair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, replace_whole

ROOT = Path(__file__).resolve().parents[1]
#: Name of a way to pair -> changed options.
WAYS = {
    "default": {},
    "any distance": {"reach_mm": 0.0},
    "mean feature not taken off": {"centered": False, "similarity": 0.8},
    "as in the paper (0.8)": {"centered": False, "similarity": 0.8, "reach_mm": 0.0},
    "as in the paper (0.6)": {"centered": False, "similarity": 0.6, "reach_mm": 0.0},
    "similarity 0.8": {"similarity": 0.8},
}
HEAD = (
    "way to pair",
    "regions",
    "pairs",
    "Dice mean",
    "median",
    "Dice > 0.5",
    "unmoved",
    "same structure",
    "TRE mm",
    "folds %",
)
PAIR_HEAD = ("structure in the fixed region", "in the moving region", "pairs", "Dice", "unmoved")
#: What a region is called whose commonest label is none of the 118.
_UNLABELED = "(no label)"


@dataclass(frozen=True)
class PairedRegion:
    """One pair: Dice with its partner carried by the true motion, and unmoved (after the start);
    the commonest label of both, 0 for none."""

    dice: float
    unmoved: float
    labels: tuple[int, int]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samreg_regions")
    parser.add_argument("--encoder", default="lite_medsam")
    parser.add_argument("--slice-mm", type=float, default=Options().slice_mm)
    parser.add_argument("--motion", type=float, nargs=2, default=(10.0, 25.0))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--name", default="samreg-regions", help="name of the file written")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of the pairs")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    return parser.parse_args(arguments)


class Trial:
    """The pair, prepared as the method prepares it, with the regions of both images."""

    def __init__(self, pair: SemiSyntheticPair, encoder: str, slice_mm: float) -> None:
        self.pair, self.progress = pair, Progress()
        settings = with_changes(
            Settings.preset("fast"), features={"encoder": encoder, "cache": False}
        )
        self.options = replace(Options(), slice_mm=slice_mm)
        images = (pair.fixed, pair.moving)
        modality, counted, _ = understand(*images, settings, (None, None))
        self.start = find_start(*images, counted, modality, settings, self.progress)
        size = (settings.grid.spacing_mm, settings.grid.margin_mm)
        self.prepared = prepare_pair(*images, self.start, *size, modality, counted, 16)
        self.segmenter = load_segmenter(encoder, progress=self.progress)
        self.finder = RegionFinder(
            self.segmenter, self.prepared, settings.features, slice_mm, self.progress
        )

    def detect(self) -> None:
        """Finds the masks of all slices; ``seconds`` is what it took."""
        begun = time.process_time()
        rules = self.options.proposal_rules(self.segmenter.prompts)
        self.detected = self.finder.detect(rules, lambda share: None)
        self.seconds = time.process_time() - begun

    def measured(self, name: str, changes: dict) -> tuple[list[str], list[PairedRegion]]:
        """A row of the table, and its pairs."""
        options = replace(self.options, **changes)
        found = self.finder.pair(self.detected, options.pairing_rules())
        masks = [found.masks(which, self.prepared.grid) for which in (False, True)]
        pairs = self._anatomy(masks)
        dice = np.array([pair.dice for pair in pairs])
        tre, folds = self._dense(masks, options)
        row = [
            name,
            f"{found.counts[0]} / {found.counts[1]}",
            str(len(dice)),
            f"{np.mean(dice):.2f}",
            f"{np.median(dice):.2f}",
            f"{100 * np.mean(dice > 0.5):.0f} %",
            f"{np.mean([pair.unmoved for pair in pairs]):.2f}",
            hits(pairs),
            f"{tre:.2f}",
            f"{folds:.3f}",
        ]
        return row, pairs

    def _anatomy(self, masks: list[torch.Tensor]) -> list[PairedRegion]:
        """What every pair holds."""
        grid, pair = self.prepared.grid, self.pair
        back = affine_to_sitk(np.linalg.inv(self.start))
        # fixed point -> true moving point -> where the start saw it
        truth = sitk.CompositeTransform([back, pair.field.to_sitk_transform()])
        labels = pair.fixed_labels.resampled(grid, labels=True).array
        moving_labels = pair.moving_labels.resampled(grid, affine_to_sitk(self.start), labels=True)
        pairs = []
        for fixed, moving in zip(*(part.numpy() for part in masks), strict=True):
            volume = Volume(moving.astype(np.uint8), grid)
            carried = volume.resampled(grid, truth, labels=True).array > 0
            found = (commonest(labels[fixed]), commonest(moving_labels.array[moving]))
            pairs.append(PairedRegion(_dice(fixed, carried), _dice(fixed, moving), found))
        return pairs

    def _dense(self, masks: list[torch.Tensor], options: Options) -> tuple[float, float]:
        """TRE in mm and folded share in % of the dense field."""
        last = options.poolings[-1]
        soft = [torch.cat([pool(m[None].float(), last) for m in part]) for part in masks]
        rest = (options.iterations, options.learning_rate, options.smoothness)
        found = field_from_regions(*soft, options.poolings, *rest, self.progress, 0.0)
        field = DisplacementField.from_voxels(found, self.prepared.grid.pooled(last))
        points = field.transform_points(self.pair.fixed_landmarks)
        errors = landmark_errors(transform_points(self.start, points), self.pair.moving_landmarks)
        return float(errors.mean()), 100 * float((field.jacobian_determinant() <= 0).float().mean())

    def picture(self, path: Path) -> None:
        """Three coronal and axial planes of both images with the pairs in the same colors."""
        from benchmarks.samreg_picture import draw

        found: FoundRegions = self.finder.pair(self.detected, self.options.pairing_rules())
        draw(path, self.prepared, [found.masks(w, self.prepared.grid) for w in (False, True)])


def _without_folders(words: list[str]) -> list[str]:
    """The arguments without folders, which may hold names of people."""
    pairs = zip(["", *words], words, strict=False)
    return shown([b for a, b in pairs if "--pictures" not in (a, b)])


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / max(1, first.sum() + second.sum())


def commonest(labels: np.ndarray) -> int:
    """The label of most voxels, 0 (no structure) without voxels."""
    return int(np.bincount(labels).argmax()) if labels.size else 0


def hits(pairs: list[PairedRegion]) -> str:
    """The share of pairs that hold the same structure, of those where a region holds one."""
    labeled = [pair.labels for pair in pairs if any(pair.labels)]
    if not labeled:
        return "none labeled"
    same = sum(fixed == moving for fixed, moving in labeled)
    return f"{100 * same / len(labeled):.0f} % of {len(labeled)}"


def pair_table(pairs: list[PairedRegion], names: dict[int, str]) -> list[str]:
    """Lines of Markdown: which structures lie in the pairs, how often, and their mean Dice."""
    lines = ["| " + " | ".join(PAIR_HEAD) + " |", "|" + "---|" * len(PAIR_HEAD)]
    for labels, count in sorted(Counter(pair.labels for pair in pairs).items()):
        these = [pair for pair in pairs if pair.labels == labels]
        words = [names.get(label, _UNLABELED) for label in labels]
        means = [np.mean([getattr(p, name) for p in these]) for name in ("dice", "unmoved")]
        cells = [*words, str(count), *(f"{mean:.2f}" for mean in means)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Finds the regions, pairs them in every way, writes the table."""
    words = sys.argv[1:] if arguments is None else arguments
    chosen = parse(words)
    torch.set_num_threads(chosen.threads)
    mean, largest = chosen.motion
    pair = lidc_pair(chosen.data, mean_motion=mean, max_motion=largest)
    trial = Trial(pair, chosen.encoder, chosen.slice_mm)
    with torch.no_grad():
        trial.detect()
        rows, pairs = zip(*(trial.measured(*way) for way in WAYS.items()), strict=True)
    fixed, moving = pair.fixed_landmarks, pair.moving_landmarks
    before = landmark_errors(fixed, moving).mean()
    start = landmark_errors(transform_points(trial.start, fixed), moving).mean()
    slices = trial.detected.features[0].shape[1]
    lines = [
        "# SAMReg: do paired regions hold the same anatomy?",
        "",
        f"`{' '.join(['python -m benchmarks.samreg_regions', *_without_folders(words)])}`",
        "",
        describe_run_in_words(describe_run(chosen.threads)),
        "",
        f"Semi-synthetic LIDC pair, motion {mean:g} mm on average and {largest:g} at most in the "
        f"lungs; TRE {before:.2f} mm as it is, {start:.2f} after the start. {slices} slices of "
        f"each image; finding the regions took {trial.seconds:.0f} CPU s. Dice: the moving region "
        "carried by the true motion against its partner, and unmoved (after the start). Same "
        "structure: the commonest of the 118 labels in both is the same; pairs without any label "
        "are left out there. TRE and folds of the dense field. Research use only.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "## The pairs of the default way, by structure",
        "",
        *pair_table(pairs[0], pair.label_names),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    path = chosen.output / f"{chosen.name}.md"
    replace_whole(path, lambda p: p.write_text(text, encoding="utf-8"))
    if chosen.pictures:
        trial.picture(chosen.pictures / f"{chosen.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
