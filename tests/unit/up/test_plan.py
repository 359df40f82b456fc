"""Tests of the supervisor's plan."""

from pathlib import Path

from antiphon.up.plan import Plan, Program


def test_a_plan_survives_its_text(tmp_path: Path) -> None:
    """A plan that is dumped and loaded is unchanged."""
    worker = Program("worker 0", ["/bin/true", "ü"], folder=tmp_path, grace=35.0)
    plan = Plan(
        [worker], Program("Envoy", ["/bin/true"], tmp_path, 5.0, ["PATH"], "SIGINT"), tmp_path, 30.0, tmp_path / "log", "up\n"
    )
    assert Plan.loads(plan.dumps()) == plan
    reloading = plan._replace(check=Program("check", ["/bin/true"], tmp_path, 5.0), retire_grace=600.0, lock=3)
    assert Plan.loads(reloading.dumps()) == reloading
    preparation = Program("preparation", ["/bin/true"], tmp_path, 5.0)
    reloading = plan._replace(preparation=preparation, restart_command=("/bin/true", "up"), set_variable="KEY")
    assert Plan.loads(reloading.dumps()) == reloading
    beside = plan._replace(envoy=None, edge=tmp_path / "edge")
    assert Plan.loads(beside.dumps()) == beside
    assert (plan.envoys_folder, beside.envoys_folder) == (tmp_path, tmp_path / "edge")


def test_the_log_on_standard_output_survives_too(tmp_path: Path) -> None:
    """`stdout_is_log` is kept when a plan is dumped and loaded."""
    plan = Plan([], Program("Envoy", ["/bin/true"], tmp_path, 5.0), tmp_path, 30.0, None, "up\n", stdout_is_log=True)
    assert Plan.loads(plan.dumps()).stdout_is_log
