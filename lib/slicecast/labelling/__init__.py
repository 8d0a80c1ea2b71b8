"""MONAI Label's side: requests in, answers out, tasks, strategies, scoring and the store of images and labels."""
