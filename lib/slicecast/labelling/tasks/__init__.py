"""The models that clients see: a request turned into typed values, and the answer to it; pre-annotations."""
