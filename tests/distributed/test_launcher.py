from __future__ import annotations

from tlfast.distributed import launcher

# Arguments of LaunchConfig in the oldest torch that setup.cfg allows, 2.6.
KNOWN = {"min_nodes", "max_nodes", "nproc_per_node", "logs_specs", "run_id", "role", "rdzv_endpoint", "rdzv_backend", "rdzv_configs", "rdzv_timeout"}
KNOWN |= {"max_restarts", "monitor_interval", "start_method", "log_line_prefix_template", "metrics_cfg", "local_addr"}


def test_the_agent_is_called_as_the_oldest_torch_knows_it(monkeypatch):
    monkeypatch.setattr(launcher, "LaunchConfig", lambda **given: given)
    monkeypatch.setattr(launcher, "elastic_launch", lambda config, command: lambda *arguments: seen.append((config, arguments)))
    seen = []
    assert launcher.launch("tlfast.cli.worker", "request", 2) == {}
    ((config, arguments),) = seen
    assert config.keys() <= KNOWN and config["nproc_per_node"] == 2 and arguments == ("-m", "tlfast.cli.worker", "request")
