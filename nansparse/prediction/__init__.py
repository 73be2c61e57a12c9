"""Segmenting volumes with any network: where models come from, the job of one volume, many volumes."""

from nansparse.prediction.cluster import predict_on_cluster
from nansparse.prediction.grids import Grid
from nansparse.prediction.jobs import plan_jobs
from nansparse.prediction.models import ModelSource
from nansparse.prediction.networks import load_networks
from nansparse.prediction.outcomes import Outcome
from nansparse.prediction.recipe import Background, Recipe, View
from nansparse.prediction.volume import Job, predict_volume
from nansparse.prediction.workers import predict_many

__all__ = [
    "Background",
    "Grid",
    "Job",
    "ModelSource",
    "Outcome",
    "Recipe",
    "View",
    "load_networks",
    "plan_jobs",
    "predict_many",
    "predict_on_cluster",
    "predict_volume",
]
