"""Networks to run nansparse on, under their authors' parameter names, and three small trained ones."""

from nansparse.zoo.checkpoints import CheckpointError, load_weights
from nansparse.zoo.denoiser import load_denoiser
from nansparse.zoo.digits import DigitsCNN, load_digits_model
from nansparse.zoo.fastsurfer import FastSurferCNN, FastSurferVINN
from nansparse.zoo.fondue import FONDUE
from nansparse.zoo.tissue import load_tissue_model, score_tissue_model
from nansparse.zoo.unet import UNet
from nansparse.zoo.xception import Xception

__all__ = [
    "FONDUE",
    "CheckpointError",
    "DigitsCNN",
    "FastSurferCNN",
    "FastSurferVINN",
    "UNet",
    "Xception",
    "load_denoiser",
    "load_digits_model",
    "load_tissue_model",
    "load_weights",
    "score_tissue_model",
]
