"""MONAI Label's side: requests in, answers out, tasks, strategies and the store of images and labels."""
