"""Many volumes: names, workers, a cluster; one that fails does not stop the rest."""

from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest

from nansparse import InputError
from nansparse.prediction import (
    Grid,
    ModelSource,
    Recipe,
    View,
    plan_jobs,
    predict_many,
    predict_on_cluster,
    workers,
)
from nansparse.prediction.outcomes import DONE, FAILED, SKIPPED
from nansparse.prediction.workers import open_jobs
from tests.prediction.nets import ball, write_image

NATIVE = Grid("native", intensity="none")


def recipe(name):
    return Recipe((View(ModelSource(f"tests.prediction.nets:{name}")),), NATIVE, window=(8, 8, 8))


@pytest.fixture
def folder(tmp_path):
    """Hold one volume that holds NaN, one too bright for the deadly network, and two good ones."""
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.nii.gz", ball())
    write_image(tmp_path / "in" / "b.nii.gz", np.where(ball() > 0.7, np.nan, ball()))
    write_image(tmp_path / "in" / "c.nii.gz", ball(bright=1.0))
    write_image(tmp_path / "in" / "d.mgz", ball())
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path


def test_jobs_are_named_after_their_images(folder):
    jobs = plan_jobs([folder / "in", folder / "in" / "a.nii.gz"], folder / "out", probabilities=True)
    assert [job.labels.name for job in jobs] == [
        "a_labels.nii.gz", "b_labels.nii.gz", "c_labels.nii.gz", "d_labels.mgz"
    ]  # fmt: skip
    assert jobs[3].probabilities == folder / "out" / "d_probabilities.mgz"
    (alone,) = plan_jobs([folder / "in" / "a.nii.gz"], folder / "seg_labels.nii", probabilities=True)
    assert (alone.labels, alone.probabilities) == (
        folder / "seg_labels.nii",
        folder / "seg_probabilities.nii",
    )


def test_labels_in_the_images_own_folder_are_no_images(folder):
    first = plan_jobs([folder / "in"], folder / "in")
    for job in first:
        job.labels.touch()
    assert plan_jobs([folder / "in"], folder / "in") == first
    assert all(job.finished for job in first)


def test_names_that_clash(folder):
    (folder / "in2").mkdir()
    write_image(folder / "in2" / "a.nii.gz", ball())
    with pytest.raises(InputError, match="would both be written to.*a_labels.nii.gz"):
        plan_jobs([folder / "in", folder / "in2"], folder / "out")
    with pytest.raises(InputError, match="cannot be written to one file"):
        plan_jobs([folder / "in"], folder / "out.nii.gz")
    with pytest.raises(InputError, match="would overwrite an input"):
        plan_jobs([folder / "in" / "a.nii.gz"], folder / "in" / "a.nii.gz")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no image in the folder"):
        plan_jobs([folder / "empty"], folder / "out")
    with pytest.raises(InputError, match="no image at"):
        plan_jobs([folder / "nowhere.nii"], folder / "out")
    with pytest.raises(InputError, match="the output must be a folder"):
        plan_jobs([folder / "in"], folder / "in" / "notes.txt")


def by_name(outcomes):
    return {outcome.job.image.name: outcome for outcome in outcomes}


def test_an_interrupt_while_workers_are_started_stops_those_that_run(folder, monkeypatch):
    class Interrupted(ThreadPoolExecutor):
        """Starts one worker, and hears Ctrl-C before the second."""

        def submit(self, *args):
            if self._threads:
                raise KeyboardInterrupt
            return super().submit(*args)

    monkeypatch.setattr(workers, "ThreadPoolExecutor", Interrupted)
    jobs = plan_jobs([folder / "in"], folder / "out")
    with pytest.raises(KeyboardInterrupt):
        next(predict_many(recipe("slow"), jobs, workers=2))
    assert not list((folder / "out").glob("*_labels*"))


def test_a_worker_that_dies_fails_one_volume_and_the_rest_are_done(folder):
    jobs = plan_jobs([folder / "in"], folder / "out")
    outcomes = by_name(predict_many(recipe("deadly"), jobs, workers=2))
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "a.nii.gz": DONE, "b.nii.gz": FAILED, "c.nii.gz": FAILED, "d.mgz": DONE
    }  # fmt: skip
    assert "holds" in outcomes["b.nii.gz"].reason
    assert "NaN" in outcomes["b.nii.gz"].reason
    assert outcomes["c.nii.gz"].reason.startswith("its worker process ended with code 3")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a_labels.nii.gz", "d_labels.mgz"]
    done, left = open_jobs(jobs, overwrite=False)
    assert {outcome.job.image.name: outcome.status for outcome in done} == {
        "a.nii.gz": SKIPPED,
        "d.mgz": SKIPPED,
    }
    assert [job.image.name for job in left] == ["b.nii.gz", "c.nii.gz"]
    assert open_jobs(jobs, overwrite=True) == ([], jobs)


def test_whoever_stops_listening_stops_the_workers(folder):
    jobs = plan_jobs([folder / "in"], folder / "out")
    outcomes = predict_many(recipe("bright3d"), jobs, workers=1)
    assert next(outcomes).job == jobs[0]
    outcomes.close()  # as an interrupt does; it returns when the worker is gone
    assert not any(path.name.startswith(".") for path in (folder / "out").iterdir())


def test_a_fault_of_the_network_is_told_and_traced(folder):
    from nansparse.prediction.networks import load_networks
    from nansparse.prediction.outcomes import attempt

    job = plan_jobs([folder / "in" / "a.nii.gz"], folder / "out")[0]
    outcome = attempt(recipe("faulty"), load_networks(recipe("faulty")), job)
    assert outcome.status == FAILED
    assert outcome.reason.startswith("RuntimeError: ")
    assert "\n" not in outcome.reason
    assert "in forward" in outcome.trace
    assert not (folder / "out").exists()


def test_on_a_local_dask_cluster(folder):
    distributed = pytest.importorskip("distributed", reason="pip install 'nansparse[dask]'")
    jobs = plan_jobs([folder / "in"], folder / "out")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        outcomes = by_name(predict_on_cluster(recipe("bright3d"), jobs, client))
        broken = list(predict_on_cluster(recipe("absent"), jobs[:1], client))
    assert {name for name, outcome in outcomes.items() if outcome.status == DONE} == {
        "a.nii.gz", "c.nii.gz", "d.mgz"
    }  # fmt: skip
    assert "NaN" in outcomes["b.nii.gz"].reason
    labels = np.asarray(nibabel.load(folder / "out" / "a_labels.nii.gz").dataobj)
    assert np.array_equal(labels, ball() > 0.5)
    assert [(outcome.status, outcome.reason) for outcome in broken] == [
        (FAILED, "'tests.prediction.nets' has no 'absent'")
    ]
