"""Settings of the Ray Serve application, and the application that they make, without a cluster."""

from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed")

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.ray import RaySettings, build_app


def test_settings_of_a_command_line_are_texts() -> None:
    settings = RaySettings.checked({"bundle": "/models/qa", "max_replicas": "4", "front_on_head": "false"})
    assert (settings.max_replicas, settings.front_on_head) == (4, False)
    assert settings.server().bundle == "/models/qa"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_replica": 2}, "max_replica: .* there are bundle, model_name"),
        ({"max_replicas": "many"}, "max_replicas: .*, not 'many'"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is less than min_replicas=3"),
        ({"num_cpus": 0}, "num_cpus: .*, not 0"),
        ({"max_items": 0}, "max_items"),
        ({"request_timeout_s": -1}, "request_timeout_s must be more than 0 seconds"),
    ],
)
def test_bad_settings(args: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        build_app(args)


def test_settings_become_those_of_deployments() -> None:
    app = build_app(
        {"max_replicas": 6, "min_replicas": 2, "max_ongoing_requests": 8, "max_queued_requests": 9, "num_cpus": 3}
    )
    front = app._bound_deployment
    model = front.init_args[0]._bound_deployment
    assert (model.max_ongoing_requests, model.max_queued_requests) == (8, 9)
    assert model.ray_actor_options == {"num_cpus": 3}
    scaling = model._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 6, 4)
    assert front.max_ongoing_requests > 6 * 8 + 9
    assert front.ray_actor_options == {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
