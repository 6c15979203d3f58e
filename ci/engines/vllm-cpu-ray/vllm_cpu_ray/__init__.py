"""Lets vLLM on CPUs place its workers by Ray.

vLLM asks its platform which of Ray's resources a worker takes. Its CPU platform names none, and then
refuses Ray ("current platform cpu does not support ray"). This one borrows the name "GPU", so that the
commands, the placement and vLLM's executor are those of hosts with GPUs. There is no GPU behind it: a
raylet offers as many as its `--num-gpus` says.

Nothing changes unless CPU_RAY=1 is in the environment of vLLM and of the raylets.
"""

import os


def register():
    if os.environ.get("CPU_RAY") == "1":
        return "vllm_cpu_ray.platform.CpuRayPlatform"
    return None
