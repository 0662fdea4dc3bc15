"""What is carried from one image to the other lands where SimpleITK says, in both directions.

The fixed image is oblique, the moving one has flipped axes, and the transform is a bend followed by
a rotation with a shift of centimeters: a wrong direction, axis or sign shows as centimeters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import vtk
from known_scenes import centered_grid, draw, rotation, soft_ellipsoid, waves
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from GlideRegLib.cli import main
from GlideRegLib.errors import InputError, OutputError, SettingsError
from GlideRegLib.field import DisplacementField, read_transform, transform_points
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import read_landmarks, write_landmarks
from GlideRegLib.propagation.carrier import Carrier
from GlideRegLib.propagation.job import PropagateJob, run_propagate_job
from GlideRegLib.propagation.markups import carry_points
from GlideRegLib.propagation.meshes import carry_mesh
from GlideRegLib.propagation.volumes import carry_dose, carry_labels, label_volumes, read_layers
from GlideRegLib.volume import Volume, read_volume, write_volume

FIXED = centered_grid((52, 48, 44), (2.0, 2.2, 2.5), rotation((8, -5, 12)), (10, -20, 30))
MOVING = centered_grid((50, 46, 40), (2.5, 2.4, 3.0), np.diag([-1.0, -1.0, 1.0]), (40, -5, 5))
#: A place well inside of the fixed image.
CENTER = np.array([14.0, -17.0, 27.0])


@pytest.fixture(scope="module")
def transform() -> sitk.Transform:
    """Fixed to moving: a bend of up to 6 mm on the fixed grid, then a rotation and a shift."""
    points = FIXED.to_physical(np.indices(FIXED.shape[::-1]).reshape(3, -1).T.astype(float))
    phase = (points - CENTER) / 30
    bend = 6 * np.stack([np.sin(phase[:, 1]), np.sin(phase[:, 2]), np.cos(phase[:, 0])], axis=1)
    array = bend.reshape(*FIXED.shape[::-1], 3).transpose(2, 1, 0, 3)
    image = FIXED.copy_to_sitk(sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=True))
    turn = sitk.AffineTransform(3)
    turn.SetMatrix(rotation((4, 6, -7)).ravel().tolist())
    turn.SetTranslation((26, 18, -27))
    return sitk.CompositeTransform([turn, sitk.DisplacementFieldTransform(image)])


@pytest.fixture(params=[False, True], ids=["forth", "back"])
def carrier(request: pytest.FixtureRequest, transform: sitk.Transform) -> Carrier:
    return Carrier(transform, FIXED, MOVING, request.param)


def inner_points(count: int = 60) -> np.ndarray:
    """Fixed points that both images show."""
    return CENTER + np.random.default_rng(0).uniform(-22, 22, (count, 3))


def pairs(carrier: Carrier) -> tuple[np.ndarray, np.ndarray]:
    """Source and target points that belong together, by SimpleITK alone."""
    fixed = inner_points()
    moving = np.array([carrier.transform.TransformPoint(p) for p in fixed.tolist()])
    return (fixed, moving) if carrier.back else (moving, fixed)


# --- directions -------------------------------------------------------------------------------


def test_points_land_where_simpleitk_says(carrier: Carrier) -> None:
    source, target = pairs(carrier)
    assert np.abs(carrier.push(source) - target).max() < 0.02
    assert np.linalg.norm(source - target, axis=1).min() > 20  # the wrong way would be far off


def test_images_are_pulled_the_other_way(carrier: Carrier) -> None:
    """Tissue keeps its value: the source scene at a point is the carried image at its partner."""
    scene = waves(3, shortest=40, longest=80)
    image = draw(scene, carrier.source)
    carried = image.resampled(carrier.target, carrier.pull).to_sitk()
    source, target = pairs(carrier)
    sampled = [carried.EvaluateAtPhysicalPoint(p, sitk.sitkLinear) for p in target.tolist()]
    assert np.abs(np.array(sampled) - scene(source)).max() < 0.08


def test_the_inverse_for_images_is_as_exact_as_it_says(carrier: Carrier) -> None:
    error = carrier.inverse_error()
    if not carrier.back:
        assert error is None
        return
    # Only at the faces of the fixed image, where its field ends, the inverse has a crease.
    assert error["p95"] < 0.05 and error["max"] < 0.3
    source, target = pairs(carrier)
    assert np.linalg.norm(transform_points(carrier.pull, target) - source, axis=1).max() < 0.1


def test_a_linear_transform_is_inverted_exactly() -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.1, 0.1, 0, 0, 0.9, 0.2, 0, 0, 1))
    affine.SetTranslation((100, 5, -300))
    carrier = Carrier(affine, FIXED, MOVING, back=True)
    there = np.array([affine.TransformPoint(p) for p in inner_points().tolist()])
    assert np.abs(transform_points(carrier.pull, there) - inner_points()).max() < 1e-9


def test_a_flat_transform_is_refused() -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1, 0, 0, 0, 1, 0, 0, 0, 0))
    with pytest.raises(InputError, match="no inverse"):
        _ = Carrier(affine, FIXED, MOVING, back=True).pull


def test_many_points_are_as_exact_as_single_ones(transform: sitk.Transform) -> None:
    points = CENTER + np.random.default_rng(1).uniform(-80, 80, (700, 3))
    single = np.array([transform.TransformPoint(p) for p in points.tolist()])
    assert np.abs(transform_points(transform, points) - single).max() < 1e-8


# --- label maps and dose ----------------------------------------------------------------------


def balls(grid: Grid, centers: np.ndarray, radius: float = 9.0) -> Volume:
    """Balls with the values 3, 4, ... on a grid."""
    array = np.zeros(grid.shape, np.uint8)
    for value, center in enumerate(centers, start=3):
        array[draw(soft_ellipsoid(tuple(center), (radius,) * 3), grid).array > 0.5] = value
    return Volume(array, grid)


def centroid(labels: Volume, value: int) -> np.ndarray:
    index = np.argwhere(labels.array == value)[:, ::-1].mean(axis=0)
    return labels.grid.to_physical(index[None])[0]


@pytest.mark.parametrize("smooth", [False, True])
def test_structures_land_where_their_points_do(carrier: Carrier, smooth: bool) -> None:
    source, target = pairs(carrier)
    far = np.argmax(np.linalg.norm(source - source[0], axis=1))
    labels = balls(carrier.source, source[[0, far]])
    carried = carry_labels(labels, carrier, smooth)
    assert carried.array.dtype == labels.array.dtype
    for value, center in ((3, target[0]), (4, target[far])):
        assert np.linalg.norm(centroid(carried, value) - center) < 0.8
    assert set(np.unique(carried.array)) == {0, 3, 4}


def test_nearest_is_exactly_what_simpleitk_resamples(transform: sitk.Transform) -> None:
    carrier = Carrier(transform, FIXED, MOVING)
    labels = balls(MOVING, pairs(carrier)[0][:3])
    image = sitk.Image(FIXED.size, sitk.sitkUInt8)
    reference = sitk.Resample(
        labels.to_sitk(), FIXED.copy_to_sitk(image), transform, sitk.sitkNearestNeighbor, 0
    )
    assert np.array_equal(carry_labels(labels, carrier).array, sitk.GetArrayFromImage(reference))


def test_smooth_keeps_the_volume_of_every_ball(carrier: Carrier) -> None:
    """Within 5 %: rounded corners of voxels of 2.5 mm take 3.5 % of a ball of 20 mm."""
    source = pairs(carrier)[0]
    radii = np.linalg.norm(source - source[0], axis=1)
    labels = balls(carrier.source, source[[0, np.argmax(radii)]], radius=10)
    carried = label_volumes(carry_labels(labels, carrier, smooth=True))
    nearest = label_volumes(carry_labels(labels, carrier))
    for value in (3, 4):
        assert carried[value] == pytest.approx(nearest[value], rel=0.05)


def test_smooth_leaves_no_gap_where_three_structures_meet() -> None:
    """Three sectors fill the image: background has no place between them."""
    thick = centered_grid((30, 30, 8), (2.0, 2.0, 6.0))
    fine = centered_grid((40, 40, 30), (1.2, 1.2, 1.3))

    def sector(points: np.ndarray) -> np.ndarray:
        angle = np.arctan2(points[:, 1] + 0.4 * points[:, 2], points[:, 0] - 0.3 * points[:, 2])
        return np.digitize(angle, (-np.pi / 3, np.pi / 3)) + 1.0

    thick_map = Volume(draw(sector, thick).array.astype(np.uint8), thick)
    carrier = Carrier(sitk.Transform(3, sitk.sitkIdentity), fine, thick)
    carried = carry_labels(thick_map, carrier, smooth=True)
    truth = draw(sector, fine).array
    assert carried.array.min() > 0
    wrong = np.mean(carried.array != truth)
    assert wrong < 0.5 * np.mean(carry_labels(thick_map, carrier).array != truth)


def test_smooth_follows_thick_slices_better_than_nearest() -> None:
    """A slanted edge in slices of 6 mm, on voxels of 1.5 mm: fewer wrong voxels."""
    thick = centered_grid((40, 40, 12), (1.5, 1.5, 6.0))
    fine = centered_grid((40, 40, 40), (1.5, 1.5, 1.5))

    def half(grid: Grid) -> Volume:
        return Volume(
            (draw(lambda p: p[:, 0] + 0.8 * p[:, 2], grid).array < 0).astype(np.uint8), grid
        )

    carrier = Carrier(sitk.Transform(3, sitk.sitkIdentity), fine, thick)
    wrong = [
        np.count_nonzero(carry_labels(half(thick), carrier, smooth).array != half(fine).array)
        for smooth in (False, True)
    ]
    assert wrong[1] < 0.4 * wrong[0]


def test_smooth_thins_out_what_coarse_voxels_cannot_hold() -> None:
    """Stripes of single fine voxels become their mean on voxels four times as large."""
    fine = centered_grid((64, 16, 16), (1.0, 1.0, 1.0))
    coarse = centered_grid((16, 4, 4), (4.0, 4.0, 4.0))
    stripes = np.zeros(fine.shape, np.uint8)
    stripes[:, :, 2::5] = 1  # a fifth is labeled: nowhere the larger part
    carrier = Carrier(sitk.Transform(3, sitk.sitkIdentity), coarse, fine)
    assert carry_labels(Volume(stripes, fine), carrier).array.any()
    assert not carry_labels(Volume(stripes, fine), carrier, smooth=True).array.any()


def test_dose_keeps_its_values_and_is_zero_outside(carrier: Carrier) -> None:
    source, target = pairs(carrier)
    hot = soft_ellipsoid(tuple(source[0]), (30.0, 30.0, 30.0), 20)
    dose = draw(lambda p: 60 * hot(p) + 5, carrier.source)
    carried = carry_dose(dose, carrier)
    image, original = carried.to_sitk(), dose.to_sitk()
    for p, q in zip(source[:20].tolist(), target[:20].tolist(), strict=True):
        assert image.EvaluateAtPhysicalPoint(q) == pytest.approx(
            original.EvaluateAtPhysicalPoint(p), abs=0.8
        )
    assert carried.array.min() == 0 and carried.array.dtype == np.float32
    assert carried.array.max() <= dose.array.max()


def test_a_segmentation_keeps_its_layers_and_names(
    tmp_path: Path, transform: sitk.Transform
) -> None:
    """Two overlapping segments in two layers, as Slicer stores them."""
    carrier = Carrier(transform, FIXED, MOVING)
    centers = pairs(carrier)[0]
    layers = [balls(MOVING, centers[k : k + 1], radius=15).to_sitk() for k in (0, 1)]
    image = sitk.Compose(layers)
    for key, value in {
        "Segment0_Name": "Tumor",
        "Segment0_Layer": "0",
        "Segment0_LabelValue": "3",
        "Segment0_Extent": "0 5 0 5 0 5",
        "Segment1_Name": "Lung",
        "Segment1_Layer": "1",
        "Segment1_LabelValue": "3",
        "Segmentation_ReferenceImageExtentOffset": "4 5 6",
    }.items():
        image.SetMetaData(key, value)
    paths = save_scene(tmp_path, transform)
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    report = run_propagate_job(
        PropagateJob(**paths, output=str(tmp_path / "out"), labels=(str(tmp_path / "s.seg.nrrd"),))
    )
    carried, about = read_layers(tmp_path / "out" / "s.seg.nrrd")
    assert [about[f"Segment{k}_Name"] for k in (0, 1)] == ["Tumor", "Lung"]
    assert about["Segment0_Extent"] == "0 51 0 47 0 43"
    assert about["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    for k in (0, 1):
        assert np.linalg.norm(centroid(carried[k], 3) - pairs(carrier)[1][k]) < 0.8
        row = report["items"][0]["labels"][k]
        assert row["target_mm3"] == pytest.approx(label_volumes(carried[k])[3])
        assert row["source_mm3"] == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.05)


# --- markups ----------------------------------------------------------------------------------


def markup(kind: str, points: np.ndarray, frame: str = "LPS", **more: object) -> dict:
    flip = np.array([-1, -1, 1]) if frame == "RAS" else np.ones(3)
    control = [
        {"label": f"P{k}", "position": (p * flip).tolist(), "positionStatus": "defined"}
        for k, p in enumerate(points)
    ]
    return {"type": kind, "coordinateSystem": frame, "controlPoints": control, **more}


@pytest.mark.parametrize("frame", ["LPS", "RAS"])
def test_curves_keep_their_order_labels_and_looks(
    tmp_path: Path, carrier: Carrier, frame: str
) -> None:
    source, target = pairs(carrier)
    unplaced = {"label": "later", "positionStatus": "undefined", "position": [0.0, 0.0, 0.0]}
    curve = markup("ClosedCurve", source[:7], frame, display={"color": [1, 0, 0]})
    curve["measurements"] = [{"name": "length", "value": 12}]
    curve["controlPoints"].insert(3, unplaced)
    content = {"markups": [curve, markup("Fiducial", source[7:9], frame)]}
    (tmp_path / "c.mrk.json").write_text(json.dumps(content))
    carry_points(tmp_path / "c.mrk.json", tmp_path / "out.mrk.json", carrier.push)
    written = json.loads((tmp_path / "out.mrk.json").read_text(encoding="utf-8"))["markups"]
    flip = np.array([-1, -1, 1]) if frame == "RAS" else np.ones(3)
    found = [np.array([p["position"] for p in m["controlPoints"]]) * flip for m in written]
    assert np.allclose(np.delete(found[0], 3, axis=0), target[:7], atol=0.02)
    assert np.allclose(found[1], target[7:9], atol=0.02)
    assert written[0]["controlPoints"][3] == unplaced
    labels = [p["label"] for p in written[0]["controlPoints"]]
    assert labels == ["P0", "P1", "P2", "later", "P3", "P4", "P5", "P6"]
    assert written[0]["display"] == {"color": [1, 0, 0]} and written[0]["measurements"] == []


@pytest.mark.parametrize("frame", ["LPS", "RAS"])
def test_a_roi_turns_with_a_rigid_motion_and_keeps_its_size(tmp_path: Path, frame: str) -> None:
    turn = rotation((10, -20, 30))
    rigid = sitk.AffineTransform(3)
    rigid.SetMatrix(turn.ravel().tolist())
    rigid.SetTranslation((30, -40, 50))
    carrier = Carrier(rigid, FIXED, MOVING, back=True)
    flip = np.diag([-1, -1, 1]) if frame == "RAS" else np.eye(3)
    axes = rotation((5, 6, 7))
    roi = markup("ROI", CENTER[None], frame, roiType="Box", size=[20.0, 30.0, 40.0])
    roi.update(center=(flip @ CENTER).tolist(), orientation=(flip @ axes).ravel().tolist())
    (tmp_path / "r.mrk.json").write_text(json.dumps({"markups": [roi]}))
    carry_points(tmp_path / "r.mrk.json", tmp_path / "o.mrk.json", carrier.push)
    box = json.loads((tmp_path / "o.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    center = np.array(rigid.TransformPoint(CENTER.tolist()))
    assert np.allclose(flip @ box["center"], center)
    assert np.allclose(flip @ box["controlPoints"][0]["position"], center)
    assert np.allclose(box["size"], [20, 30, 40])
    assert np.allclose(flip @ np.reshape(box["orientation"], (3, 3)), turn @ axes)


def test_a_roi_holds_all_of_the_bent_box(tmp_path: Path, carrier: Carrier) -> None:
    source = pairs(carrier)[0]
    roi = markup("ROI", source[:1], roiType="Box", size=[20.0, 16.0, 12.0])
    roi.update(center=source[0].tolist(), orientation=np.eye(3).ravel().tolist())
    (tmp_path / "r.mrk.json").write_text(json.dumps({"markups": [roi]}))
    carry_points(tmp_path / "r.mrk.json", tmp_path / "o.mrk.json", carrier.push)
    box = json.loads((tmp_path / "o.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    corners = np.array([(x, y, z) for x in (-10, 10) for y in (-8, 8) for z in (-6, 6)])
    moved = carrier.push(source[0] + corners)
    axes = np.reshape(box["orientation"], (3, 3))
    inside = np.abs((moved - box["center"]) @ axes) - np.asarray(box["size"]) / 2
    assert inside.max() < 1e-6
    assert np.prod(box["size"]) < 2 * 20 * 16 * 12


@pytest.mark.parametrize("ending", [".fcsv", ".csv", ".txt"])
def test_other_landmark_files_keep_their_format(
    tmp_path: Path, carrier: Carrier, ending: str
) -> None:
    source, target = pairs(carrier)
    write_landmarks(tmp_path / f"in{ending}", source[:5], list("abcde"))
    carry_points(tmp_path / f"in{ending}", tmp_path / f"out{ending}", carrier.push)
    written = read_landmarks(tmp_path / f"out{ending}")
    assert np.allclose(written.points, target[:5], atol=0.02)
    assert written.labels == (list("12345") if ending == ".txt" else list("abcde"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"markups": [{"type": "Plane", "controlPoints": []}]}, "is a Plane"),
        ({"markups": []}, "no 3D Slicer markups"),
        ({"markups": [{"type": "Line", "controlPoints": [{"position": [1, 2]}]}]}, "3 finite"),
        ({"markups": [{"type": "Line", "coordinateSystem": "XYZ"}]}, "states the frame"),
        ({"markups": [{"type": "Line", "controlPoints": []}]}, "no placed points"),
    ],
)
def test_unfit_markups_get_a_sentence(
    tmp_path: Path, transform: sitk.Transform, content: dict, sentence: str
) -> None:
    (tmp_path / "m.mrk.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        carry_points(
            tmp_path / "m.mrk.json",
            tmp_path / "o.mrk.json",
            Carrier(transform, FIXED, MOVING).push,
        )


# --- meshes -----------------------------------------------------------------------------------


def ball_mesh(center: np.ndarray, normals: bool) -> vtk.vtkPolyData:
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(*center)
    sphere.SetRadius(10)
    sphere.SetThetaResolution(24)
    sphere.SetPhiResolution(16)
    sphere.SetGenerateNormals(normals)
    sphere.Update()
    return sphere.GetOutput()


WRITERS = {
    "text.vtk": (vtk.vtkPolyDataWriter, vtk.vtkPolyDataReader, False),
    "binary.vtk": (vtk.vtkPolyDataWriter, vtk.vtkPolyDataReader, True),
    "text.stl": (vtk.vtkSTLWriter, vtk.vtkSTLReader, False),
    "binary.stl": (vtk.vtkSTLWriter, vtk.vtkSTLReader, True),
    "text.ply": (vtk.vtkPLYWriter, vtk.vtkPLYReader, False),
    "binary.ply": (vtk.vtkPLYWriter, vtk.vtkPLYReader, True),
}


def write_mesh(path: Path, mesh: vtk.vtkPolyData, frame: str = "") -> None:
    class_, _, binary = WRITERS[path.name]
    writer = class_()
    writer.SetInputData(mesh)
    writer.SetFileName(str(path))
    if binary:
        writer.SetFileTypeToBinary()
    else:
        writer.SetFileTypeToASCII()
    if frame:
        comment = f"3D Slicer output. SPACE={frame}"
        if path.suffix == ".ply":
            writer.AddComment(comment)
        else:
            writer.SetHeader(comment)
    writer.Write()


def read_back(path: Path) -> vtk.vtkPolyData:
    reader = WRITERS[path.name][1]()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def points_of(mesh: vtk.vtkPolyData) -> np.ndarray:
    return vtk_to_numpy(mesh.GetPoints().GetData()).astype(float)


@pytest.mark.parametrize("name", WRITERS)
def test_meshes_land_where_simpleitk_says_and_keep_their_faces(
    tmp_path: Path, carrier: Carrier, name: str
) -> None:
    """VTK writes the file and reads the carried one."""
    mesh = ball_mesh(pairs(carrier)[0][0], normals=True)
    (tmp_path / "in").mkdir()
    write_mesh(tmp_path / "in" / name, mesh, "LPS")
    original = read_back(tmp_path / "in" / name)
    before, after, notes = carry_mesh(tmp_path / "in" / name, tmp_path / name, carrier)
    carried = read_back(tmp_path / name)
    here, there = points_of(original), points_of(carried)
    assert not notes and len(before) == len(after) == len(here)
    assert carried.GetNumberOfPolys() == original.GetNumberOfPolys() > 500
    if carrier.back:
        partners = np.array([carrier.transform.TransformPoint(p) for p in here.tolist()])
        assert np.abs(there - partners).max() < 1e-3
    else:
        partners = np.array([carrier.transform.TransformPoint(p) for p in there.tolist()])
        assert np.abs(partners - here).max() < 0.02


def outward(points: np.ndarray, normals: np.ndarray) -> float:
    """The smallest cosine between normals and the way from the center."""
    away = points - points.mean(axis=0)
    return float((away * normals).sum(axis=1).min() / np.linalg.norm(away, axis=1).max())


@pytest.mark.parametrize("name", ["text.vtk", "binary.vtk", "text.ply", "binary.ply"])
def test_normals_turn_with_the_surface(tmp_path: Path, carrier: Carrier, name: str) -> None:
    """Compared with the normals that VTK computes from the carried faces."""
    (tmp_path / "in").mkdir()
    write_mesh(tmp_path / "in" / name, ball_mesh(pairs(carrier)[0][0], normals=True), "LPS")
    carry_mesh(tmp_path / "in" / name, tmp_path / name, carrier)
    carried = read_back(tmp_path / name)
    ours = vtk_to_numpy(carried.GetPointData().GetNormals())
    again = vtk.vtkPolyDataNormals()
    again.SetInputData(carried)
    again.SplittingOff()
    again.ConsistencyOff()
    again.Update()
    reference = vtk_to_numpy(again.GetOutput().GetPointData().GetNormals())
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-3)
    assert (ours * reference).sum(axis=1).min() > 0.97
    assert outward(points_of(carried), ours) > 0.6


@pytest.mark.parametrize("name", WRITERS)
def test_meshes_in_ras_are_read_and_written_in_ras(
    tmp_path: Path, transform: sitk.Transform, name: str
) -> None:
    carrier = Carrier(transform, FIXED, MOVING)
    mesh = ball_mesh(pairs(carrier)[0][0], normals=False)
    points = points_of(mesh) * (-1, -1, 1)
    mesh.GetPoints().SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
    (tmp_path / "in").mkdir()
    write_mesh(tmp_path / "in" / name, mesh, "RAS")
    carry_mesh(tmp_path / "in" / name, tmp_path / name, carrier)
    there = points_of(read_back(tmp_path / name)) * (-1, -1, 1)
    assert np.linalg.norm(there.mean(axis=0) - pairs(carrier)[1][0]) < 1


@pytest.mark.parametrize("name", WRITERS)
def test_meshes_cut_short_get_a_sentence(
    tmp_path: Path, transform: sitk.Transform, name: str
) -> None:
    write_mesh(tmp_path / name, ball_mesh(CENTER, normals=False))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: 400 + len(data) // 20])
    with pytest.raises(InputError, match="damaged or cut short"):
        carry_mesh(tmp_path / name, tmp_path / "o.vtk", Carrier(transform, FIXED, MOVING))


def test_other_meshes_get_a_sentence(tmp_path: Path, transform: sitk.Transform) -> None:
    (tmp_path / "m.vtp").write_text("<VTKFile/>")
    with pytest.raises(InputError, match=r"save it as \.vtk, \.stl, \.ply"):
        carry_mesh(tmp_path / "m.vtp", tmp_path / "o.vtp", Carrier(transform, FIXED, MOVING))


# --- files ------------------------------------------------------------------------------------


def save_scene(folder: Path, transform: sitk.Transform) -> dict[str, str]:
    """Both images and the transform as files."""
    for name, grid in (("fixed", FIXED), ("moving", MOVING)):
        volume = draw(lambda p: 100 * waves(1)(p), grid)
        write_volume(folder / f"{name}.nii.gz", volume, np.int16)
    sitk.WriteTransform(transform, str(folder / "t.h5"))
    return {
        "fixed": str(folder / "fixed.nii.gz"),
        "moving": str(folder / "moving.nii.gz"),
        "transform": str(folder / "t.h5"),
    }


def everything(folder: Path, transform: sitk.Transform, back: bool) -> list[str]:
    """Files of every kind that belong to the source image, as arguments of the command."""
    carrier = Carrier(transform, FIXED, MOVING, back)
    source = pairs(carrier)[0]
    write_volume(folder / "Doe_Jane_labels.nii.gz", balls(carrier.source, source[:2]))
    write_volume(folder / "dose.nrrd", draw(lambda p: 30 + 10 * waves(5)(p), carrier.source))
    write_landmarks(folder / "points.mrk.json", source[:4], list("abcd"))
    write_landmarks(folder / "more.fcsv", source[:3])
    write_mesh(folder / "binary.stl", ball_mesh(source[0], normals=False))
    names = {
        "--labels": "Doe_Jane_labels.nii.gz",
        "--dose": "dose.nrrd",
        "--points": "points.mrk.json",
        "--images": f"{'fixed' if back else 'moving'}.nii.gz",
        "--meshes": "binary.stl",
    }
    arguments = [part for option, name in names.items() for part in (option, str(folder / name))]
    return [*arguments, "--points", str(folder / "more.fcsv"), *(["--back"] if back else [])]


@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
def test_the_command_carries_everything_and_leaves_the_inputs_alone(
    tmp_path: Path, transform: sitk.Transform, back: bool
) -> None:
    paths = save_scene(tmp_path, transform)
    more = everything(tmp_path, transform, back)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    output = tmp_path / "out"
    command = ["propagate", paths["fixed"], paths["moving"], "--transform", paths["transform"]]
    assert main([*command, *more, "-o", str(output)]) == 0
    assert all(path.read_bytes() == data for path, data in before.items())
    image = f"{'fixed' if back else 'moving'}.nii.gz"
    assert {path.name for path in output.iterdir()} == {
        "Doe_Jane_labels.nii.gz", "dose.nrrd", "points.mrk.json", "more.fcsv", image,
        "binary.stl", "propagation.json",
    }  # fmt: skip
    target = MOVING if back else FIXED
    for name in ("dose.nrrd", image):
        assert read_volume(output / name).grid.is_close(target, 1e-2)
    assert sitk.ReadImage(str(output / image)).GetPixelID() == sitk.sitkInt16
    text = (output / "propagation.json").read_text(encoding="utf-8")
    assert "Jane" not in text and str(tmp_path) not in text
    report = json.loads(text)
    assert report["direction"] == ("fixed to moving" if back else "moving to fixed")
    assert (report["transform"]["inverse_error_mm"] is None) != back
    assert len(report["items"]) == 6
    # Kinds agree with each other: the mesh lies on its structure and its landmark.
    landmark = read_landmarks(output / "points.mrk.json").points[0]
    labels = Volume.from_sitk(sitk.ReadImage(str(output / "Doe_Jane_labels.nii.gz")))
    assert np.linalg.norm(centroid(labels, 3) - landmark) < 0.8
    assert np.linalg.norm(points_of(read_back(output / "binary.stl")).mean(axis=0) - landmark) < 1


def test_there_and_back_again(tmp_path: Path, transform: sitk.Transform) -> None:
    paths = save_scene(tmp_path, transform)
    points = pairs(Carrier(transform, FIXED, MOVING))[0]
    write_landmarks(tmp_path / "p.csv", points)
    job = PropagateJob(**paths, output=str(tmp_path / "a"), points=(str(tmp_path / "p.csv"),))
    run_propagate_job(job)
    again = PropagateJob(
        **paths, output=str(tmp_path / "b"), points=(str(tmp_path / "a" / "p.csv"),), back=True
    )
    run_propagate_job(again)
    assert np.abs(read_landmarks(tmp_path / "b" / "p.csv").points - points).max() < 0.02


def torn_scene(folder: Path) -> dict[str, str]:
    """A field over a box inside of both images, 20 mm to the left in all of it: no inverse reaches
    what lies just in front of its edge."""
    grid = centered_grid((40, 30, 30), (2.0, 2.0, 2.0))
    vectors = np.zeros((10, 12, 12, 3))
    vectors[..., 0] = 20
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.SetSpacing((4.0, 4.0, 4.0))
    field.SetOrigin((-24.0, -24.0, -20.0))
    sitk.WriteImage(field, str(folder / "t.mha"))
    write_volume(folder / "i.mha", draw(waves(1), grid))
    write_volume(folder / "l.mha", balls(grid, np.zeros((1, 3)), radius=20.0))
    images = {"fixed": str(folder / "i.mha"), "moving": str(folder / "i.mha")}
    return {**images, "transform": str(folder / "t.mha"), "output": str(folder / "out")}


def test_points_that_no_inverse_reaches_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured again here: every carried point through the transform, by SimpleITK alone."""
    paths = torn_scene(tmp_path)
    points = np.array([[x, 0.0, 0.0] for x in (-28, -18, -10, 0, 10, 30)])
    write_landmarks(tmp_path / "p.csv", points)
    write_mesh(tmp_path / "text.ply", ball_mesh(np.array([-18.0, 0, 0]), normals=False), "LPS")
    command = ["propagate", paths["fixed"], paths["moving"], "--transform", paths["transform"]]
    command += ["--points", str(tmp_path / "p.csv"), "--meshes", str(tmp_path / "text.ply")]
    assert main([*command, "-o", paths["output"]]) == 0
    field = read_transform(paths["transform"])
    carried = read_landmarks(tmp_path / "out" / "p.csv").points
    arrived = np.array([field.TransformPoint(p) for p in carried.tolist()])
    missed = np.linalg.norm(arrived - points, axis=1)
    assert missed.max() > 1  # else this says nothing
    report = json.loads((tmp_path / "out" / "propagation.json").read_text(encoding="utf-8"))
    found, mesh = (item["inverse_error_mm"] for item in report["items"])
    assert found["max"] == pytest.approx(missed.max(), abs=1e-3)
    assert found["mean"] == pytest.approx(missed.mean(), abs=1e-3)
    assert found["p95"] == pytest.approx(np.percentile(missed, 95), abs=1e-3)
    assert (found["n"], found["beyond"]) == (6, np.count_nonzero(missed > 0.1))
    assert mesh["max"] > 1 and mesh["beyond"] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{found['beyond']} of 6 points could not be placed exactly" in said
    assert "mesh points could not be placed exactly" in said


def test_an_inverse_for_voxels_that_is_not_exact_is_said(tmp_path: Path) -> None:
    paths = torn_scene(tmp_path)
    report = run_propagate_job(PropagateJob(**paths, labels=(str(tmp_path / "l.mha"),), back=True))
    found = report["transform"]["inverse_error_mm"]
    assert found["max"] > 1 and found["beyond"] > 0
    assert any("labels, dose and images" in text for text in report["messages"])
    assert f"by {found['max']:.1f} mm at most" in " ".join(report["messages"])


def test_exact_places_are_not_warned_of(tmp_path: Path, transform: sitk.Transform) -> None:
    """Also for a ROI, of which more than its control points are carried."""
    paths = save_scene(tmp_path, transform)
    source = pairs(Carrier(transform, FIXED, MOVING))[0]
    roi = markup("ROI", source[:1], roiType="Box", size=[8.0, 8.0, 8.0])
    roi.update(center=source[0].tolist(), orientation=np.eye(3).ravel().tolist())
    (tmp_path / "r.mrk.json").write_text(json.dumps({"markups": [roi]}))
    job = PropagateJob(**paths, output=str(tmp_path / "a"), points=(str(tmp_path / "r.mrk.json"),))
    report = run_propagate_job(job)
    found = report["items"][0]["inverse_error_mm"]
    assert found["max"] < 0.02 and found["beyond"] == 0 and found["n"] > 100
    assert not [text for text in report["messages"] if "warning" in text]


def test_a_damaged_file_leaves_nothing_behind(
    tmp_path: Path, transform: sitk.Transform, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_scene(tmp_path, transform)
    write_landmarks(tmp_path / "p.csv", inner_points())
    (tmp_path / "m.stl").write_bytes(b"solid\nfacet")
    code = main(
        [
            *("propagate", paths["fixed"], paths["moving"], "--transform", paths["transform"]),
            *("--points", str(tmp_path / "p.csv"), "--meshes", str(tmp_path / "m.stl")),
            *("-o", str(tmp_path / "out")),
        ]
    )
    error = capsys.readouterr().err
    assert code == 2 and "damaged or cut short" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({}, InputError, "Nothing to carry"),
        ({"points": ("gone.csv",)}, InputError, "does not exist"),
        ({"points": ("p.csv", "sub/p.csv")}, InputError, "would both be written"),
        ({"points": ("p.csv",), "output": "."}, OutputError, "would replace the input"),
        ({"dose": ("d.dcm",)}, InputError, "is DICOM"),
    ],
)
def test_what_cannot_be_run_gets_a_sentence(
    tmp_path: Path,
    transform: sitk.Transform,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict,
    kind: type,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = save_scene(tmp_path, transform)
    write_landmarks("p.csv", inner_points())
    write_landmarks("sub/p.csv", inner_points())
    Path("d.dcm").write_bytes(b"")
    with pytest.raises(kind, match=sentence):
        run_propagate_job(PropagateJob(**{**paths, "output": "out", **changes}))
    assert not Path("out").exists()


def test_the_worker_carries_with_grids_in_the_place_of_images(
    tmp_path: Path, transform: sitk.Transform
) -> None:
    """As 3D Slicer runs it: the same numbers as from the images themselves."""
    paths = save_scene(tmp_path, transform)
    write_volume(tmp_path / "l.mha", balls(MOVING, pairs(Carrier(transform, FIXED, MOVING))[0][:2]))
    write_landmarks(tmp_path / "p.csv", inner_points())
    job = PropagateJob(
        **paths,
        output=str(tmp_path / "images"),
        labels=(str(tmp_path / "l.mha"),),
        points=(str(tmp_path / "p.csv"),),
        smooth=True,
    )
    run_propagate_job(job)
    for role, grid in (("fixed", FIXED), ("moving", MOVING)):
        (tmp_path / f"{role}.json").write_text(json.dumps(grid.to_dict()))
        paths[role] = str(tmp_path / f"{role}.json")
    again = replace(job, **paths, output=str(tmp_path / "grids"), compress=False)
    assert PropagateJob.from_json(again.to_json()) == again
    done, events = run_worker(again.to_json(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert [entry["kind"] for entry in events[-1]["items"]] == ["labels", "points"]
    assert {"read", "carry", "save"} <= {event.get("stage") for event in events}
    images = [read_volume(tmp_path / folder / "l.mha").array for folder in ("images", "grids")]
    np.testing.assert_array_equal(*images)
    texts = [
        (tmp_path / folder / "p.csv").read_text(encoding="utf-8") for folder in ("images", "grids")
    ]
    # NIfTI keeps the directions of the images in single precision.
    points = [np.loadtxt(text.splitlines()[1:], delimiter=",", usecols=(1, 2, 3)) for text in texts]
    np.testing.assert_allclose(*points, atol=1e-3)


def run_worker(text: str, folder: Path) -> tuple[subprocess.CompletedProcess, list[dict]]:
    """The worker's process on a job, and its events."""
    (folder / "job.json").write_text(text, encoding="utf-8")
    arguments = [sys.executable, "-m", "GlideRegLib.worker", str(folder / "job.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color": "red"}, "unknown names: color"),
        ({"transform": ""}, "lacks transform"),
        ({"points": "p.csv"}, "points must be lists"),
        ({"task": "register"}, '"task": "propagate"'),
    ],
)
def test_a_wrong_job_is_one_sentence(change: dict, said: str) -> None:
    data = {**json.loads(PropagateJob("f", "m", "t", "o").to_json()), **change}
    with pytest.raises(SettingsError, match=said):
        PropagateJob.from_json(json.dumps(data))


def test_a_grid_file_without_a_grid_gets_a_sentence(
    tmp_path: Path, transform: sitk.Transform
) -> None:
    paths = save_scene(tmp_path, transform)
    write_landmarks(tmp_path / "p.csv", inner_points())
    (tmp_path / "g.json").write_text('{"size": [2]}')
    job = PropagateJob(
        **{**paths, "moving": str(tmp_path / "g.json")},
        output=str(tmp_path / "o"),
        points=(str(tmp_path / "p.csv"),),
    )
    with pytest.raises(InputError, match="holds no grid"):
        run_propagate_job(job)


def test_points_that_do_not_belong_to_the_source_are_said(
    tmp_path: Path, transform: sitk.Transform
) -> None:
    """RAS read as LPS, or the wrong direction: the points lie outside of the source image."""
    paths = save_scene(tmp_path, transform)
    write_landmarks(tmp_path / "p.csv", MOVING.center + np.diag([400.0, 0, 0])[:2])
    job = PropagateJob(**paths, output=str(tmp_path / "o"), points=(str(tmp_path / "p.csv"),))
    report = run_propagate_job(job)
    assert report["items"][0]["outside_source"] == 1
    assert any("check their frame" in text for text in report["messages"])


def test_a_displacement_field_file_is_a_transform_too(
    tmp_path: Path, transform: sitk.Transform
) -> None:
    field = DisplacementField.from_sitk(
        sitk.TransformToDisplacementField(
            transform, sitk.sitkVectorFloat64, FIXED.size, FIXED.origin, FIXED.spacing,
            FIXED.direction,
        )
    )  # fmt: skip
    sitk.WriteImage(field.to_sitk(), str(tmp_path / "d.nii.gz"))
    for back in (False, True):
        carrier = Carrier(read_transform(tmp_path / "d.nii.gz"), FIXED, MOVING, back)
        source, target = pairs(Carrier(transform, FIXED, MOVING, back))
        assert np.abs(carrier.push(source) - target).max() < 0.05
