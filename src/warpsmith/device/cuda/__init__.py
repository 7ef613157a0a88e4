"""NVIDIA GPUs through the CUDA driver: programs run in a runner process that holds nothing but their memory.

    judge ──messages──> runner        CudaDevice asks, `runner` loads cubins and launches plans
      │                   │
      └──── arena ────────┘           one allocation of the runner, mapped by the judge (CUDA IPC) or copied as bytes

Nothing is imported here, so that the runner starts in a fraction of a second.
"""
