"""Networks to run nansparse on: FastSurferCNN, FastSurferVINN, and a small trained tissue segmentation."""

from nansparse.zoo.checkpoints import CheckpointError, load_fastsurfer_checkpoint
from nansparse.zoo.fastsurfer import FastSurferCNN, FastSurferVINN

__all__ = ["CheckpointError", "FastSurferCNN", "FastSurferVINN", "load_fastsurfer_checkpoint"]
