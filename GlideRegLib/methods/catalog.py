"""The methods that there are: what each is called, where it comes from, and what it needs."""

from __future__ import annotations

from typing import Any

from .base import Method, Need

#: Files of weights that count, best first; each is taken too from the folder that its package
#: makes for it. The methods look for these, and ``missing`` does.
UNIGRADICON_FILES = (
    "Step_2_final.trch",
    "unigradicon1.0/Step_2_final.trch",
    "unigradicon_Step_2_final.trch",
)
DINOV2_FILES = tuple(
    f"dinov2_vit{size}14{kind}_pretrain.pth" for size in "lbs" for kind in ("", "_reg4")
)
_OWN = "Apache-2.0, written for this library from the paper; no code copied"
_GLIDE = (
    "Zhu et al., GLIDE-Reg: Global-to-Local Deformable Registration Using Co-Optimized Foundation "
    "and Handcrafted Features"
)


def _glide(name: str, title: str, **changes: Any) -> Method:
    return Method(
        name,
        title,
        _GLIDE,
        "https://arxiv.org/abs/2603.00218",
        _OWN,
        "glide",
        changes=changes,
        takes_masks=True,
        takes_landmarks=True,
    )


def _dinoreg(
    name: str, title: str, defaults: dict[str, Any] | None = None, needs: tuple[Need, ...] = ()
) -> Method:
    return Method(
        name,
        title,
        "Song, Xu, Yan, DINO-Reg: General Purpose Image Encoder for Training-Free Multi-modal "
        "Deformable Medical Image Registration, MICCAI 2024",
        "https://github.com/RPIDIAL/DINO-Reg",
        _OWN,
        "dinoreg",
        needs,
        defaults=defaults or {},
        takes_masks=True,
    )


def _unigradicon(name: str, title: str, **defaults: Any) -> Method:
    return Method(
        name,
        title,
        "Tian et al., uniGradICON: A Foundation Model for Medical Image Registration, MICCAI 2024",
        "https://github.com/uncbiag/uniGradICON",
        "of its authors (code Apache-2.0), package and weights installed by the user",
        "unigradicon",
        (
            Need.package("unigradicon", "pip install unigradicon"),
            Need.weights(
                UNIGRADICON_FILES,
                "get it from the release unigradicon_weights of "
                "https://github.com/uncbiag/uniGradICON and put it into the folder "
                "$GLIDEREG_WEIGHTS, or name it with the option weights",
            ),
        ),
        defaults=defaults,
    )


_ALL = (
    _glide("glide", "GLIDE-Reg"),
    _glide("glide-local", "GLIDE-Reg, local features only", features={"use": "local"}),
    _glide("glide-global", "GLIDE-Reg, global features only", features={"use": "global"}),
    _glide("glide-static", "GLIDE-Reg, VAE trained beforehand", reduction={"kind": "static"}),
    _glide("glide-pca", "GLIDE-Reg, PCA instead of the VAE", reduction={"kind": "pca"}),
    Method(
        "convexadam",
        "ConvexAdam",
        "Siebert, Großbröhmer, Hansen, Heinrich, ConvexAdam: Self-Configuring "
        "Dual-Optimisation-Based 3D Multitask Medical Image Registration, IEEE TMI 2024",
        "https://github.com/multimodallearning/convexAdam",
        _OWN,
        "convexadam",
        takes_masks=True,
    ),
    Method(
        "samconvex",
        "SAMConvex (with our features)",
        "Li et al., SAMConvex: Fast Discrete Optimization for CT Registration Using "
        "Self-supervised Anatomical Embedding and Correlation Pyramid, MICCAI 2023",
        "https://github.com/Alison-brie/SAMConvex",
        _OWN,
        "samconvex",
        takes_masks=True,
    ),
    Method(
        "samreg",
        "SAMReg (with our segmenters)",
        "Huang et al., One registration is worth two segmentations, MICCAI 2024",
        "https://github.com/sqhuang0103/SAMReg",
        _OWN,
        "samreg",
        takes_masks=True,
    ),
    _dinoreg(
        "dinoreg",
        "DINO-Reg",
        needs=(
            Need.weights(
                DINOV2_FILES,
                "get it, or that of vitb14 or vits14, from "
                "https://github.com/facebookresearch/dinov2 and put it into the folder "
                "$GLIDEREG_WEIGHTS, or name it with the option weights",
            ),
        ),
    ),
    _dinoreg("dinoreg-sam", "DINO-Reg's scheme with our encoder", {"encoder": "settings"}),
    _unigradicon("unigradicon", "uniGradICON"),
    _unigradicon("unigradicon-io", "uniGradICON + instance optimization", iterations=50),
    Method(
        "ants",
        "ANTs SyN",
        "Avants, Epstein, Grossman, Gee, Symmetric diffeomorphic image registration with "
        "cross-correlation, Medical Image Analysis 2008",
        "https://github.com/ANTsX/ANTsPy",
        "Apache-2.0, installed by the user",
        "ants",
        (Need.package("ants", "pip install antspyx"),),
    ),
    Method(
        "elastix",
        "elastix B-spline",
        "Klein, Staring, Murphy, Viergever, Pluim, elastix: a toolbox for intensity-based medical "
        "image registration, IEEE TMI 2010",
        "https://github.com/InsightSoftwareConsortium/ITKElastix",
        "Apache-2.0, installed by the user",
        "elastix",
        (Need.distribution("itk-elastix", "pip install itk-elastix"),),
    ),
    Method(
        "fireants",
        "FireANTs",
        "Jena, Chaudhari, Gee, FireANTs: Adaptive Riemannian Optimization for Multi-Scale "
        "Diffeomorphic Registration, 2024",
        "https://github.com/rohitrango/FireANTs",
        "its own license, installed by the user",
        "fireants",
        # 1.5.0 pins simpleitk==2.2.1, which contradicts ours, but runs with newer ones.
        (Need.package("fireants", "pip install --no-deps fireants, then pip install tqdm"),),
    ),
    Method(
        "niftyreg",
        "NiftyReg reg_f3d",
        "Modat et al., Fast free-form deformation using graphics processing units, Computer "
        "Methods and Programs in Biomedicine 2010",
        "https://github.com/KCL-BMEIS/niftyreg",
        "BSD, installed by the user",
        "niftyreg",
        (
            Need.program("reg_f3d", "build https://github.com/KCL-BMEIS/niftyreg"),
            Need.program("reg_transform", "it comes with reg_f3d"),
        ),
    ),
    Method(
        "deeds",
        "deeds",
        "Heinrich, Jenkinson, Brady, Schnabel, MRF-based deformable registration and ventilation "
        "estimation of lung CT, IEEE TMI 2013",
        "https://github.com/mattiaspaul/deedsBCV",
        "MIT, installed by the user",
        "deeds",
        (Need.program("deedsBCV", "build https://github.com/mattiaspaul/deedsBCV"),),
    ),
    Method(
        "corrfield",
        "corrField",
        "Heinrich, Handels, Simpson, Estimating Large Lung Motion in COPD Patients by Symmetric "
        "Regularised Correspondence Fields, MICCAI 2015",
        "https://github.com/multimodallearning/Lung250M-4B",
        "of its authors, installed by the user; needs CUDA",
        "corrfield",
        (
            Need.program(
                "corrfield",
                "clone https://github.com/multimodallearning/Lung250M-4B and put a script of that "
                "name there that runs its corrfield/corrfield.py",
            ),
        ),
        takes_masks=True,
    ),
)

#: name -> method.
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
