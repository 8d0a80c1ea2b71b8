"""MONAI Label's infer tasks, which clients list as models: request, task, answer."""
