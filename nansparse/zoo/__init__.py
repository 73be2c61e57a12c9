"""Networks to run nansparse on: FastSurferCNN, FastSurferVINN, and a small trained tissue segmentation."""

from nansparse.zoo.checkpoints import CheckpointError, load_fastsurfer_checkpoint
from nansparse.zoo.fastsurfer import FastSurferCNN, FastSurferVINN
from nansparse.zoo.tissue import load_tissue_model, score_tissue_model

__all__ = [
    "CheckpointError",
    "FastSurferCNN",
    "FastSurferVINN",
    "load_fastsurfer_checkpoint",
    "load_tissue_model",
    "score_tissue_model",
]
