"""The laboratory measures the product, makes its sample data and trains the bundled model.

It imports `slicecast`, never the other way.
"""
