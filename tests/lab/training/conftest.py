from tiny_training import one_thread, tiny_batch, tiny_model, tiny_settings

__all__ = ["one_thread", "tiny_batch", "tiny_model", "tiny_settings"]
